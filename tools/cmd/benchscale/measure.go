package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
)

// measurement is what has been measured with one layout.
type measurement struct {
	services, pods, clients int
	loadBefore, loadAfter   string
	objects                 int
	created                 time.Duration

	start, startCPU    time.Duration
	heap               float64 // MiB, as all memory here
	rss                float64
	sync, syncCPU      time.Duration
	syncBytes          int64
	rssServed, rssPeak float64

	lone, loneLast durations
	churned        durations
	rate, achieved float64
	churnCPU       time.Duration // per 1000 changes
}

func measure(ctx context.Context, o options, bin, root string, services int) (*measurement, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Hour, errTimeout)
	defer cancel()
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
	defer server.Stop()
	m := &measurement{services: services, pods: o.pods, clients: o.clients, rate: o.rate, loadBefore: load()}
	objects, err := newMesh(server.REST(), services, o.pods)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if m.objects, err = objects.create(ctx); err != nil {
		return nil, err
	}
	m.created = time.Since(begin)

	begin = time.Now()
	p, err := startPilot(ctx, o.program, server.Dir(), server.REST())
	if err != nil {
		return nil, err
	}
	defer p.stop()
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
	if err := p.profile(ctx, "/debug/pprof/heap?gc=1", o.profiles, fmt.Sprintf("heap-%d.pb.gz", services)); err != nil {
		return nil, err
	}
	err = m.serve(ctx, o, p, objects)
	m.loadAfter = load()
	return m, err
}

// warmUps are changes before those that are measured.
const warmUps = 20

func (m *measurement) serve(ctx context.Context, o options, p *pilot, objects *mesh) error {
	f := newFleet(o.clients, warmUps+o.lone+o.churn)
	defer f.close()
	before, err := p.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := f.connect(ctx, p.grpc, o.clients); err != nil {
		return fmt.Errorf("%w\n%s", err, p.output())
	}
	m.sync = time.Since(begin)
	after, err := p.cpu()
	if err != nil {
		return err
	}
	m.syncCPU, m.syncBytes = after-before, f.syncBytes.Load()
	if m.rssServed, m.rssPeak, err = p.rss(); err != nil {
		return err
	}
	if err := m.makeLone(ctx, f, objects, o.lone); err != nil {
		return err
	}
	return m.makeChurn(ctx, f, p, objects, o)
}

// makeLone makes changes one after the other, each when all clients have the one before.
func (m *measurement) makeLone(ctx context.Context, f *fleet, objects *mesh, n int) error {
	for i := range warmUps + n {
		if err := objects.change(ctx, i, marker(i)); err != nil {
			return fmt.Errorf("change a pod: %w", err)
		}
		acknowledged := time.Since(f.began)
		if err := f.await(1); err != nil {
			return err
		}
		if i < warmUps {
			continue
		}
		each, last := f.latencies(i, acknowledged)
		m.lone = append(m.lone, each...)
		m.loneLast = append(m.loneLast, last)
	}
	return nil
}

// makeChurn makes changes at a rate, whether clients have those before or not.
func (m *measurement) makeChurn(ctx context.Context, f *fleet, p *pilot, objects *mesh, o options) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	profiled := make(chan error, 1)
	go func() {
		profiled <- p.profile(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(float64(o.churn)/o.rate))), o.profiles, fmt.Sprintf("churn-%d.pb.gz", m.services))
	}()
	first := warmUps + o.lone
	acknowledged := make([]time.Duration, o.churn)
	errs := make(chan error, o.churn)
	ticker := time.NewTicker(time.Duration(float64(time.Second) / o.rate))
	defer ticker.Stop()
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range o.churn {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wg.Go(func() {
			if err := objects.change(ctx, first+i, marker(first+i)); err != nil {
				errs <- fmt.Errorf("change a pod: %w", err)
			}
			acknowledged[i] = time.Since(f.began)
		})
	}
	wg.Wait()
	m.achieved = float64(o.churn) / time.Since(begin).Seconds()
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
	m.churnCPU = (after - before) * 1000 / time.Duration(o.churn)
	for i := range o.churn {
		each, _ := f.latencies(first+i, acknowledged[i])
		m.churned = append(m.churned, each...)
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
