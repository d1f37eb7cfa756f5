package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/tools/internal/planeproc"
)

// bed is an API server with the objects of a layout.
type bed struct {
	server *apiserver.Server
	mesh   *mesh
}

// grow returns a bed with the layout: b with more objects, or a new one.
func (b *bed) grow(ctx context.Context, bin, root string, l layout) (*bed, error) {
	if b == nil || b.mesh.services != l.services || b.mesh.pods > l.pods {
		if b != nil {
			b.server.Stop()
		}
		crds, err := filepath.Glob(filepath.Join(root, "operator", "crds", "*.yaml"))
		if err != nil {
			return nil, err
		}
		server, err := apiserver.Start(ctx, apiserver.Config{Bin: bin, CRDs: crds, Flags: []string{
			"--enable-priority-and-fairness=false", "--max-mutating-requests-inflight=1000", "--max-requests-inflight=2000",
		}})
		if err != nil {
			return nil, err
		}
		objects, err := newMesh(server.REST())
		if err != nil {
			server.Stop()
			return nil, err
		}
		b = &bed{server: server, mesh: objects}
	}
	if err := b.mesh.grow(ctx, l); err != nil {
		b.server.Stop()
		return nil, err
	}
	return b, nil
}

// measurement is what has been measured with one layout.
type measurement struct {
	layout
	loadBefore, loadAfter string

	start, startCPU time.Duration
	heap, rss       float64 // MiB, as all memory here
	served          []*serving
}

// serving is what has been measured with a number of clients.
type serving struct {
	clients, added int
	sync, syncCPU  time.Duration // of those that were added
	syncBytes      int64
	rss, peak      float64
	lone, loneLast durations
	churned        durations
	achieved       float64       // changes per second
	responses      float64       // to each client, for each of these changes
	churnCPU       time.Duration // per 1000 changes
}

func measure(ctx context.Context, o options, c planeproc.Command, b *bed) (*measurement, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Minute, errTimeout)
	defer cancel()
	m := &measurement{layout: b.mesh.layout, loadBefore: load()}
	begin := time.Now()
	process, err := planeproc.Start(ctx, c, b.server.Dir(), b.server.REST())
	if err != nil {
		return nil, err
	}
	defer process.Stop()
	p := &pilot{process}
	m.start = time.Since(begin)
	if m.startCPU, err = p.cpu(); err != nil {
		return nil, err
	}
	if m.heap, err = p.heap(ctx); err != nil {
		return nil, err
	}
	if m.rss, _, err = p.rss(); err != nil {
		return nil, err
	}
	if err := p.profile(ctx, "/debug/pprof/heap?gc=1", o.profiles, fmt.Sprintf("heap-%s.pb.gz", m.layout)); err != nil {
		return nil, err
	}
	stages := []int{min(o.like, o.clients), o.clients}
	f := newFleet(o.clients, len(stages)*(warmUps+o.lone+o.churn))
	defer f.close()
	defer func() { b.mesh.changed += f.made }()
	for _, clients := range slices.Compact(stages) {
		s := &serving{clients: clients, added: clients - len(f.clients)}
		if err := s.measure(ctx, o, f, p, b.mesh); err != nil {
			return nil, fmt.Errorf("with %d clients: %w\n%s", clients, err, p.Output())
		}
		m.served = append(m.served, s)
	}
	m.loadAfter = load()
	return m, nil
}

// warmUps are changes before those that are measured.
const warmUps = 20

func (s *serving) measure(ctx context.Context, o options, f *fleet, p *pilot, objects *mesh) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := f.connect(ctx, p.GRPC, s.added); err != nil {
		return err
	}
	s.sync = time.Since(begin)
	after, err := p.cpu()
	if err != nil {
		return err
	}
	s.syncCPU, s.syncBytes = after-before, f.syncBytes.Load()
	if s.rss, s.peak, err = p.rss(); err != nil {
		return err
	}
	if err := s.makeLone(ctx, f, objects, o.lone); err != nil {
		return err
	}
	return s.makeChurn(ctx, f, p, objects, o)
}

// makeLone makes changes one after the other, each when all clients have the one before.
func (s *serving) makeLone(ctx context.Context, f *fleet, objects *mesh, n int) error {
	for i := range warmUps + n {
		c := f.next()
		if err := objects.change(ctx, c, marker(c)); err != nil {
			return fmt.Errorf("change a pod: %w", err)
		}
		acknowledged := time.Since(f.began)
		if err := f.await(1); err != nil {
			return err
		}
		if i < warmUps {
			continue
		}
		each, last := f.latencies(c, acknowledged)
		s.lone = append(s.lone, each...)
		s.loneLast = append(s.loneLast, last)
	}
	return nil
}

// makeChurn makes changes at a rate, whether clients have those before or not.
func (s *serving) makeChurn(ctx context.Context, f *fleet, p *pilot, objects *mesh, o options) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	responses := f.responses.Load()
	profiled := make(chan error, 1)
	go func() {
		profiled <- p.profile(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(float64(o.churn)/o.rate))), o.profiles, fmt.Sprintf("churn-%s-%d.pb.gz", objects.layout, s.clients))
	}()
	acknowledged := make(map[int]*time.Duration, o.churn)
	errs := make(chan error, o.churn)
	ticker := time.NewTicker(time.Duration(float64(time.Second) / o.rate))
	defer ticker.Stop()
	begin := time.Now()
	var wg sync.WaitGroup
	for range o.churn {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c, at := f.next(), new(time.Duration)
		acknowledged[c] = at
		wg.Go(func() {
			if err := objects.change(ctx, c, marker(c)); err != nil {
				errs <- fmt.Errorf("change a pod: %w", err)
			}
			*at = time.Since(f.began)
		})
	}
	wg.Wait()
	s.achieved = float64(o.churn) / time.Since(begin).Seconds()
	select {
	case err := <-errs:
		return err
	default:
	}
	if err := f.await(o.churn); err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	s.responses = float64(f.responses.Load()-responses) / float64(o.churn*s.clients)
	s.churnCPU = (after - before) * 1000 / time.Duration(o.churn)
	for c, at := range acknowledged {
		each, _ := f.latencies(c, *at)
		s.churned = append(s.churned, each...)
	}
	return nil
}

// load is the machine's, over the last minute.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(data), " ")
	return one
}
