package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/internal/pilotbed"
)

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
	*pilotbed.Plane
	route, endpoint *pilotbed.Mover
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
	return errors.Join(err, p.Stop())
}

func startPlane(ctx context.Context, dir string, services int) (*plane, error) {
	dirs, err := pilotbed.NewDirs(dir)
	if err != nil {
		return nil, err
	}
	if err := writeMesh(dirs.Config, services); err != nil {
		return nil, err
	}
	p := &plane{}
	p.route, p.endpoint = movers(dirs)
	for _, m := range []*pilotbed.Mover{p.route, p.endpoint} {
		_, commit, err := m.Prepare()
		if err == nil {
			err = commit()
		}
		if err != nil {
			return nil, err
		}
	}
	p.Plane, err = pilotbed.Start(ctx, dirs)
	return p, err
}

// warmup is how many changes are made before any are measured.
const warmup = 30

func (l *layout) latencies(ctx context.Context, f *fleet, p *plane, o options) error {
	for s := servicesPerNamespace; s < o.services; s += servicesPerNamespace {
		if _, err := f.add(ctx, p.Addr, namespaceOf(s), false); err != nil {
			return err
		}
	}
	start := time.Now()
	for i := range o.replicas {
		n, err := f.add(ctx, p.Addr, namespaceOf(0), true)
		if err != nil {
			return err
		}
		if i == 0 {
			l.sync, l.syncBytes = time.Since(start), n
		}
	}
	for m, c := range map[*pilotbed.Mover]*change{p.route: &l.route, p.endpoint: &l.endpoint} {
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

// cpuTimes has one client, whose own work hides little.
func (l *layout) cpuTimes(ctx context.Context, f *fleet, p *plane, changes int) error {
	if _, err := f.add(ctx, p.Addr, namespaceOf(0), true); err != nil {
		return err
	}
	if _, err := f.change(p.route, warmup); err != nil {
		return err
	}
	cpu, err := pilotbed.CPU(changes, func(n int) error { _, err := f.change(p.route, n); return err })
	l.cpu = cpu
	return err
}
