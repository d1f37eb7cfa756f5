package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isthmus-mesh/isthmus/pilot/app"
	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// patience is how long anything may take that takes much less.
const patience = 30 * time.Second

// layout is what has been measured with one size of mesh.
type layout struct {
	services    int
	ready, sync time.Duration
	syncBytes   int
	latency     []time.Duration
	cpu         time.Duration // per change
	bytes       float64       // per change and client
	resource    int           // size of the changed resource
	content     int           // size of the Address in it
}

// plane is a control plane that runs in this process.
type plane struct {
	addr string
	pod  movingPod
	stop func() error
}

func measureLayout(ctx context.Context, services, clients, changes int) (layout, error) {
	l := layout{services: services}
	dir, err := os.MkdirTemp("", "benchwds-")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	p, err := startPlane(ctx, dir, services)
	if err != nil {
		return l, err
	}
	l.ready = time.Since(start)
	err = errors.Join(l.measure(ctx, p, clients, changes), p.stop())
	return l, err
}

func startPlane(ctx context.Context, dir string, services int) (*plane, error) {
	p := &plane{pod: movingPod{dir: filepath.Join(dir, "config"), staging: filepath.Join(dir, "staging")}}
	for _, d := range []string{p.pod.dir, p.pod.staging} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := writeMesh(p.pod.dir, services); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	started, ended := make(chan app.Addresses, 1), make(chan error, 1)
	cfg := app.Default()
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.SecureGRPCAddr, cfg.MonitoringAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.ConfigDir, cfg.CADir = p.pod.dir, filepath.Join(dir, "ca")
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Started = func(a app.Addresses) { started <- a }
	go func() { ended <- app.Run(ctx, cfg) }()
	p.stop = func() error { cancel(); return <-ended }
	select {
	case a := <-started:
		p.addr = a.GRPC.String()
		return p, nil
	case err := <-ended:
		cancel()
		return nil, fmt.Errorf("control plane: %w", err)
	case <-time.After(patience):
		return nil, errors.Join(errors.New("control plane does not start"), p.stop())
	}
}

// measure takes the CPU with one client, so that the clients' own work hides little, then latency and bytes with all of them.
func (l *layout) measure(ctx context.Context, p *plane, clients, changes int) error {
	f := newFleet()
	defer f.close()
	if _, err := f.add(ctx, p.addr); err != nil {
		return err
	}
	if _, err := l.change(f, p, 20); err != nil { // warm up
		return err
	}
	if err := l.measureCPU(f, p, changes); err != nil {
		return err
	}

	start := time.Now()
	for range clients - 1 {
		n, err := f.add(ctx, p.addr)
		if err != nil {
			return err
		}
		l.syncBytes = n
	}
	l.sync = time.Since(start)
	if _, err := l.change(f, p, 20); err != nil {
		return err
	}
	received := f.bytes.Load()
	latency, err := l.change(f, p, changes)
	l.latency = latency
	l.bytes = float64(f.bytes.Load()-received) / float64(changes*clients)
	return err
}

// cpuBatches is odd, so that there is a median: what else runs on the machine disturbs a batch or two, not most of them.
const cpuBatches = 9

func (l *layout) measureCPU(f *fleet, p *plane, changes int) error {
	runtime.GC()
	var batches []time.Duration
	for range cpuBatches {
		before := cpuTime()
		if _, err := l.change(f, p, changes); err != nil {
			return err
		}
		batches = append(batches, (cpuTime()-before)/time.Duration(changes))
	}
	l.cpu = bench.Percentile(batches, 50)
	return nil
}

// change makes n changes, one after the other, each when all clients have the one before, and returns how long each took.
func (l *layout) change(f *fleet, p *plane, n int) ([]time.Duration, error) {
	var out []time.Duration
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for range n {
		marker, commit, err := p.pod.prepare()
		if err != nil {
			return nil, err
		}
		f.marker.Store(&marker)
		start := time.Now()
		if err := commit(); err != nil {
			return nil, err
		}
		for range f.stops {
			select {
			case <-f.seen:
			case <-timeout.C:
				return nil, fmt.Errorf("change %d does not reach all of %d clients", p.pod.count, len(f.stops))
			}
		}
		out = append(out, time.Since(start))
		timeout.Reset(patience)
	}
	l.resource, l.content = f.resourceSize()
	return out, nil
}

// resourceSize returns the size of the resource in the last response, which is its name, its version and its content with
// the content's type, and the size of the content alone: for one small pod xDS itself nearly doubles that.
func (f *fleet) resourceSize() (resource, content int) {
	m := f.last.Load()
	if m == nil {
		return 0, 0
	}
	r := field(m.Data, 2)
	return len(r), len(field(field(r, 2), 2))
}

// field returns the first value of a length-delimited field in a message.
func field(b []byte, want protowire.Number) []byte {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if num == want && kind == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			return v
		}
		if n = protowire.ConsumeFieldValue(num, kind, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	return nil
}

// cpuTime is what this process has used, but for what the garbage collector does only because a processor is idle.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	idle := []metrics.Sample{{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
	metrics.Read(idle)
	return time.Duration(u.Utime.Nano()+u.Stime.Nano()) - time.Duration(idle[0].Value.Float64()*float64(time.Second))
}
