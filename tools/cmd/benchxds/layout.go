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

	"github.com/isthmus-mesh/isthmus/pilot/app"
	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// patience is how long anything may take that takes much less.
const patience = 30 * time.Second

// change is what has been measured of one kind of change.
type change struct {
	latency  []time.Duration
	bytes    float64 // per change and client
	resource int     // size of the changed resource
}

// layout is what has been measured with one size of mesh.
type layout struct {
	services        int
	sync            time.Duration
	syncBytes       int
	route, endpoint change
	cpu             time.Duration // per change of a route
}

// plane is a control plane that runs in this process.
type plane struct {
	addr            string
	route, endpoint *mover
	stop            func() error
}

// run measures with a control plane and no clients yet.
func (l *layout) run(ctx context.Context, measure func(*fleet, *plane) error) error {
	dir, err := os.MkdirTemp("", "benchxds-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := startPlane(ctx, dir, l.services)
	if err != nil {
		return err
	}
	f := newFleet()
	err = measure(f, p)
	f.close()
	return errors.Join(err, p.stop())
}

func startPlane(ctx context.Context, dir string, services int) (*plane, error) {
	config, staging := filepath.Join(dir, "config"), filepath.Join(dir, "staging")
	for _, d := range []string{config, staging} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := writeMesh(config, services); err != nil {
		return nil, err
	}
	p := &plane{}
	p.route, p.endpoint = movers(config, staging)
	for _, m := range []*mover{p.route, p.endpoint} {
		_, commit, err := m.prepare()
		if err == nil {
			err = commit()
		}
		if err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	started, ended := make(chan app.Addresses, 1), make(chan error, 1)
	cfg := app.Default()
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.SecureGRPCAddr, cfg.MonitoringAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.ConfigDir, cfg.CADir = config, filepath.Join(dir, "ca")
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

// warmup is how many changes are made before any are measured.
const warmup = 30

func (l *layout) latencies(ctx context.Context, f *fleet, p *plane, o options) error {
	for s := servicesPerNamespace; s < o.services; s += servicesPerNamespace {
		if _, err := f.add(ctx, p.addr, namespaceOf(s), false); err != nil {
			return err
		}
	}
	start := time.Now()
	for i := range o.replicas {
		n, err := f.add(ctx, p.addr, namespaceOf(0), true)
		if err != nil {
			return err
		}
		if i == 0 {
			l.sync, l.syncBytes = time.Since(start), n
		}
	}
	for m, c := range map[*mover]*change{p.route: &l.route, p.endpoint: &l.endpoint} {
		if _, err := f.change(m, warmup); err != nil {
			return err
		}
		runtime.GC()
		received := f.bytes.Load()
		latency, err := f.change(m, o.changes)
		if err != nil {
			return err
		}
		c.latency, c.resource = latency, int(f.resource.Load())
		c.bytes = float64(f.bytes.Load()-received) / float64(o.changes*o.replicas)
	}
	return nil
}

// cpuBatches is odd, so that there is a median: what else runs on the machine disturbs a batch or two, not most of them.
const cpuBatches = 9

// cpuTimes has one client, whose own work hides little.
func (l *layout) cpuTimes(ctx context.Context, f *fleet, p *plane, changes int) error {
	if _, err := f.add(ctx, p.addr, namespaceOf(0), true); err != nil {
		return err
	}
	if _, err := f.change(p.route, warmup); err != nil {
		return err
	}
	runtime.GC()
	var batches []time.Duration
	for range cpuBatches {
		before := cpuTime()
		if _, err := f.change(p.route, changes); err != nil {
			return err
		}
		batches = append(batches, (cpuTime()-before)/time.Duration(changes))
	}
	l.cpu = bench.Percentile(batches, 50)
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
