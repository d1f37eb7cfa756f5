package experimental

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// metricsPort is where proxies show their metrics, and scraped how many are asked at a time.
const (
	metricsPort = 15020
	scraped     = 8
)

// counts of a workload, since its proxies started.
type counts struct {
	requests, failures, connections float64
	buckets                         map[float64]float64 // requests that took no longer than these milliseconds
}

// sample reads the metrics of proxies twice.
func sample(cmd *cobra.Command, g *cli.Globals, mesh *reach.Mesh, wanted []asked, duration time.Duration) ([]measured, error) {
	ctx := cmd.Context()
	proxies, err := mesh.Pods(ctx, "", "gateway.networking.k8s.io/gateway-name")
	if err != nil {
		return nil, err
	}
	nodes, err := mesh.Pods(ctx, g.IstioNamespace, "app=ztunnel")
	if err != nil {
		return nil, err
	}
	proxies = slices.DeleteFunc(append(proxies, nodes...), func(p reach.Pod) bool { return !p.Ready })
	if len(proxies) == 0 {
		return nil, errors.New("no proxy is ready: there is nothing to measure")
	}
	before, err := scrape(ctx, mesh, proxies, wanted)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	done := g.Progress().Begin(fmt.Sprintf("measuring for %s", duration))
	select {
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	case <-time.After(duration):
	}
	done()
	after, err := scrape(ctx, mesh, proxies, wanted)
	if err != nil {
		return nil, err
	}
	seconds := time.Since(begin).Seconds()
	var out []measured
	for i, w := range wanted {
		out = append(out, difference(w, before[i], after[i], seconds))
	}
	return out, nil
}

func difference(w asked, before, after counts, seconds float64) measured {
	per := func(a, b float64) float64 { return max(0, b-a) / seconds }
	buckets := map[float64]float64{}
	for le, n := range after.buckets {
		buckets[le] = max(0, n-before.buckets[le])
	}
	return measured{
		Workload: w.name + "." + w.namespace, Total: per(before.requests, after.requests), Errors: per(before.failures, after.failures),
		Connected: per(before.connections, after.connections), P50: quantile(0.5, buckets), P90: quantile(0.9, buckets), P99: quantile(0.99, buckets),
	}
}

// quantile is within which time a part of the requests were answered, between the bounds of a bucket in proportion, as Prometheus does.
func quantile(q float64, buckets map[float64]float64) time.Duration {
	bounds := slices.Sorted(maps.Keys(buckets))
	if len(bounds) == 0 || buckets[bounds[len(bounds)-1]] == 0 {
		return 0
	}
	rank := q * buckets[bounds[len(bounds)-1]]
	low, under := 0.0, 0.0
	for _, le := range bounds {
		if n := buckets[le]; n >= rank && n > under {
			if math.IsInf(le, 1) {
				return milliseconds(low)
			}
			return milliseconds(low + (le-low)*(rank-under)/(n-under))
		}
		low, under = le, buckets[le]
	}
	return milliseconds(low)
}

// scrape sums the metrics of all proxies, for each workload that is wanted. One that has no metrics counts as nothing; all without are an
// error.
func scrape(ctx context.Context, mesh *reach.Mesh, proxies []reach.Pod, wanted []asked) ([]counts, error) {
	out := make([]counts, len(wanted))
	for i := range out {
		out[i].buckets = map[float64]float64{}
	}
	var mu sync.Mutex // guards out, problems
	var problems []error
	var running sync.WaitGroup
	slots := make(chan struct{}, scraped)
	for _, pod := range proxies {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			data, err := mesh.Get(ctx, pod, metricsPort, "/stats/prometheus")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				err = add(out, wanted, data)
			}
			if err != nil {
				problems = append(problems, err)
			}
		})
	}
	running.Wait()
	if len(problems) == len(proxies) {
		return nil, errors.Join(problems...)
	}
	return out, nil
}

func add(out []counts, wanted []asked, data []byte) error {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			for i, w := range wanted {
				if labels["destination_workload"] == w.name && labels["destination_workload_namespace"] == w.namespace {
					out[i].add(name, labels, m)
				}
			}
		}
	}
	return nil
}

func (c *counts) add(name string, labels map[string]string, m *dto.Metric) {
	reporter := labels["reporter"]
	switch {
	case reporter != "destination" && reporter != "waypoint":
	case name == "istio_requests_total":
		c.requests += m.GetCounter().GetValue()
		if code := labels["response_code"]; strings.HasPrefix(code, "4") || strings.HasPrefix(code, "5") {
			c.failures += m.GetCounter().GetValue()
		}
	case name == "istio_tcp_connections_opened_total":
		c.connections += m.GetCounter().GetValue()
	case name == "istio_request_duration_milliseconds":
		for _, b := range m.GetHistogram().GetBucket() {
			if !math.IsInf(b.GetUpperBound(), 1) {
				c.buckets[b.GetUpperBound()] += float64(b.GetCumulativeCount())
			}
		}
		c.buckets[math.Inf(1)] += float64(m.GetHistogram().GetSampleCount())
	}
}
