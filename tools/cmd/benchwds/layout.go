package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isthmus-mesh/isthmus/tools/internal/pilotbed"
)

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
	*pilotbed.Plane
	pod *pilotbed.Mover
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
	err = errors.Join(l.measure(ctx, p, clients, changes), p.Stop())
	return l, err
}

func startPlane(ctx context.Context, dir string, services int) (*plane, error) {
	dirs, err := pilotbed.NewDirs(dir)
	if err != nil {
		return nil, err
	}
	if err := writeMesh(dirs.Config, services); err != nil {
		return nil, err
	}
	p, err := pilotbed.Start(ctx, dirs)
	return &plane{p, movingPod(dirs)}, err
}

// measure takes the CPU with one client, so that the clients' own work hides little, then latency and bytes with all of them.
func (l *layout) measure(ctx context.Context, p *plane, clients, changes int) error {
	f := newFleet()
	defer f.close()
	if _, err := f.add(ctx, p.Addr); err != nil {
		return err
	}
	if _, err := l.change(f, p, 20); err != nil { // warm up
		return err
	}
	cpu, err := pilotbed.CPU(changes, func(n int) error { _, err := l.change(f, p, n); return err })
	if err != nil {
		return err
	}
	l.cpu = cpu

	start := time.Now()
	for range clients - 1 {
		n, err := f.add(ctx, p.Addr)
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

// change makes n changes, one after the other, each when all clients have the one before, and returns how long each took.
func (l *layout) change(f *fleet, p *plane, n int) ([]time.Duration, error) {
	expect := func(marker string) {
		b := []byte(marker)
		f.marker.Store(&b)
	}
	out, err := p.pod.Change(n, expect, func(timeout <-chan time.Time) error {
		for range f.stops {
			select {
			case <-f.seen:
			case <-timeout:
				return fmt.Errorf("it does not reach all of %d clients", len(f.stops))
			}
		}
		return nil
	})
	l.resource, l.content = f.resourceSize()
	return out, err
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
