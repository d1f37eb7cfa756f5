package main

import (
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// The test binary starts itself again, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := runChild(os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A tiny run reports every ratio; what they are is for real runs to say. That all proxies route and refuse alike is checked on the way.
func TestRunReports(t *testing.T) {
	var out strings.Builder
	o := options{reps: 1, requests: 256, idle: 20, routes: 200, services: 20, changes: 5, haproxy: "haproxy", envoy: "../../../out/envoy/envoy"}
	if _, err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"l7-h1-1-haproxy", "l7-h1-1-envoy", "l7-h1-16-haproxy", "l7-h1-64-envoy", "l7-h2-1x1-haproxy", "l7-h2-4x8-envoy", "l7-h2-16x16-haproxy",
		"l7-hbone-1-envoy", "l7-hbone-16-envoy", "l7-hbone-64-envoy", "l7-hbone-h2-1x1-envoy", "l7-hbone-h2-4x8-envoy", "l7-h1-allocations",
		"l7-p99-h1-16-envoy", "l7-p99-h2-4x8-envoy", "l7-p99-hbone-16-envoy",
		"l7-memory-h1", "l7-memory-h1-envoy", "l7-memory-h2", "l7-memory-h2-envoy", "l7-memory-hbone", "l7-memory-hbone-envoy",
		"route-exact", "route-prefix", "route-regex", "route-folded", "route-hosts", "l7-change-route-percent",
	} {
		if !regexp.MustCompile(`(?m)^ratio ` + name + ` -?\d+\.\d+ <= [\d.]+ (ok|short)$`).MatchString(out.String()) {
			t.Errorf("no ratio %s in\n%s", name, out.String())
		}
	}
}

// What is due comes at the rate that was asked for, in an order that is the same for every proxy.
func TestPacer(t *testing.T) {
	pace := func() *pacer {
		return &pacer{at: time.Unix(0, 0), every: time.Millisecond, rnd: rand.New(rand.NewPCG(1, 2))}
	}
	a, b := pace(), pace()
	var last time.Time
	for range 10000 {
		at := a.next()
		if at != b.next() || at.Before(last) {
			t.Fatal("not the same order")
		}
		last = at
	}
	if took := last.Sub(time.Unix(0, 0)); took < 9*time.Second || took > 11*time.Second {
		t.Errorf("10 000 requests, one in a millisecond, are due within %v", took)
	}
}

// A proxy has taken what was sent when it has acknowledged that, not something before it, and not when it refused.
func TestConsumerKnowsWhatIsTaken(t *testing.T) {
	one, two := resources{}, resources{}
	for _, r := range []resources{one, two} {
		if err := r.add(&routev3.RouteConfiguration{Name: "r"}); err != nil {
			t.Fatal(err)
		}
	}
	c := newConsumer(one)
	c.stream = discards{}
	if c.push(one) != nil || c.push(two) != nil {
		t.Fatal("not sent")
	}
	c.answered("1")
	if c.missingLocked(one) != "" || c.missingLocked(two) == "" {
		t.Errorf("after the first: %q, %q", c.missingLocked(one), c.missingLocked(two))
	}
	c.answered("17")
	c.answered("2")
	if c.missingLocked(two) != "" {
		t.Error(c.missingLocked(two))
	}
}

// discards is a stream whose other end does not matter.
type discards struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (discards) Send(*discoveryv3.DeltaDiscoveryResponse) error { return nil }

// Of a report only the ratios that are met are ok, and tables without rows are left out.
func TestReport(t *testing.T) {
	var out strings.Builder
	r := &report{out: &out}
	r.ratio("good", 1, 1)
	if !r.print() {
		t.Error("not met")
	}
	r.ratio("bad", 1.1, 1)
	if r.print() {
		t.Error("met")
	}
	if err := r.table("nothing", func(io.Writer) error { return nil }); err != nil || strings.Contains(out.String(), "nothing") {
		t.Errorf("%q, %v", out.String(), err)
	}
}
