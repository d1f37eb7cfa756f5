// Package pilotbed runs a control plane in the process of a benchmark, and changes what it serves.
package pilotbed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/isthmus-mesh/isthmus/pilot/app"
	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// Patience is how long anything may take that takes much less.
const Patience = 30 * time.Second

// Dirs are the directories of a bed: Config has the manifests, Staging is for the next versions of some.
type Dirs struct{ root, Config, Staging string }

// NewDirs makes directories below root.
func NewDirs(root string) (Dirs, error) {
	d := Dirs{root, filepath.Join(root, "config"), filepath.Join(root, "staging")}
	return d, errors.Join(os.Mkdir(d.Config, 0o700), os.Mkdir(d.Staging, 0o700))
}

// Plane is a control plane that runs.
type Plane struct {
	// Addr is where it serves xDS in plaintext.
	Addr string
	stop func() error
}

// Start starts a control plane of the manifests in d.Config, and waits until it serves.
func Start(ctx context.Context, d Dirs) (*Plane, error) {
	ctx, cancel := context.WithCancel(ctx)
	started, ended := make(chan app.Addresses, 1), make(chan error, 1)
	cfg := app.Default()
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.SecureGRPCAddr, cfg.MonitoringAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.ConfigDir, cfg.CADir = d.Config, filepath.Join(d.root, "ca")
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Started = func(a app.Addresses) { started <- a }
	go func() { ended <- app.Run(ctx, cfg) }()
	p := &Plane{stop: func() error { cancel(); return <-ended }}
	select {
	case a := <-started:
		p.Addr = a.GRPC.String()
		return p, nil
	case err := <-ended:
		cancel()
		return nil, fmt.Errorf("control plane: %w", err)
	case <-time.After(Patience):
		return nil, errors.Join(errors.New("control plane does not start"), p.stop())
	}
}

// Stop ends the control plane and returns what it ended with.
func (p *Plane) Stop() error { return p.stop() }

// Mover is an object that changes again and again. Each version has a marker by which clients tell it.
type Mover struct {
	dirs  Dirs
	file  string
	next  func(n int) (marker, manifest string)
	count int
}

// NewMover has an object in a file of its own; next makes its versions, of which the first is 1.
func NewMover(d Dirs, file string, next func(n int) (marker, manifest string)) *Mover {
	return &Mover{dirs: d, file: file, next: next}
}

// Prepare writes the next version aside and returns its marker; commit makes it happen.
func (m *Mover) Prepare() (marker string, commit func() error, err error) {
	m.count++
	marker, manifest := m.next(m.count)
	aside := filepath.Join(m.dirs.Staging, m.file)
	if err := os.WriteFile(aside, []byte(manifest), 0o600); err != nil {
		return "", nil, err
	}
	return marker, func() error { return os.Rename(aside, filepath.Join(m.dirs.Config, m.file)) }, nil
}

// Change makes n versions, one after the other, and returns how long each took to arrive: expect is told of the marker before a version
// is made, arrived returns when it is everywhere, or an error when timeout is over.
func (m *Mover) Change(n int, expect func(marker string), arrived func(timeout <-chan time.Time) error) ([]time.Duration, error) {
	var out []time.Duration
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for range n {
		marker, commit, err := m.Prepare()
		if err != nil {
			return nil, err
		}
		expect(marker)
		start := time.Now()
		if err := commit(); err != nil {
			return nil, err
		}
		if err := arrived(timeout.C); err != nil {
			return nil, fmt.Errorf("change %d of %s: %w", m.count, m.file, err)
		}
		out = append(out, time.Since(start))
		timeout.Reset(Patience)
	}
	return out, nil
}

// batches is odd, so that there is a median: what else runs on the machine disturbs a batch or two, not most of them.
const batches = 9

// CPU is the CPU that this process takes for one of the changes that a call of change makes n of.
func CPU(n int, change func(n int) error) (time.Duration, error) {
	runtime.GC()
	var costs []time.Duration
	for range batches {
		before := bench.CPUTime()
		if err := change(n); err != nil {
			return 0, err
		}
		costs = append(costs, (bench.CPUTime()-before)/time.Duration(n))
	}
	return bench.Percentile(costs, 50), nil
}
