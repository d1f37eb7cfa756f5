package upstream

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// sickly is an application that fails while it is told to.
func sickly(t *testing.T) (*app, *atomic.Bool) {
	t.Helper()
	var broken atomic.Bool
	return newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		hello(w, r)
	}), &broken
}

// ask makes a request and accounts for it.
func ask(t *testing.T, c *Cluster) *Host {
	t.Helper()
	h := c.Pick(&Choice{Rand: global{}})
	if h == nil {
		t.Fatal("no host")
	}
	status := 200
	if _, err := getFrom(t.Context(), h); err != nil {
		status = 500
	}
	c.Answered(h, status)
	return h
}

func ejecting(name string) *l7.Cluster {
	conf := cluster(name, l7.UpstreamHTTP1)
	conf.LB.Policy = l7.LBRoundRobin
	conf.Outlier = &l7.Outlier{
		Consecutive5xx: 3, Interval: time.Hour, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 100,
	}
	return conf
}

func at(e *l7.Endpoint, zone string, priority, weight uint32) *l7.Endpoint {
	e.Weight, e.Locality, e.Priority, e.LocalityWeight = 1, l7.Locality{Region: "r", Zone: zone}, priority, weight
	return e
}

func assigned(c *l7.Cluster, list ...*l7.Endpoint) *l7.Config {
	e := &l7.Endpoints{Cluster: c.Name, Overprovisioning: 140, List: list}
	return l7.NewConfig().With(l7.Update{Clusters: map[string]*l7.Cluster{c.Name: c}, Endpoints: map[string]*l7.Endpoints{c.Name: e}})
}

// A host that comes back takes one request at a time; the first failure ejects it again, the first success makes it one like the others.
func TestHalfOpen(t *testing.T) {
	sick, broken := sickly(t)
	well := newApp(t, hello)
	broken.Store(true)
	conf := ejecting("c")
	m := newManager(t)
	c := m.Update(config(conf, sick.address, well.address))["c"]
	until(t, "three failures eject it", func() bool {
		ask(t, c)
		return c.state().Stats.EjectionsActive == 1
	})
	if n := sick.requests.Load(); n != 3 {
		t.Errorf("it was ejected after %d requests", n)
	}
	var host *Host
	for _, h := range c.view.Load().hosts {
		if h.Endpoint().Address == sick.address {
			host = h
		}
	}
	c.readmit(host)
	until(t, "one failure ejects it again", func() bool {
		ask(t, c)
		return c.state().Stats.EjectionsActive == 1
	})
	if n := sick.requests.Load(); n != 4 {
		t.Errorf("it got %d requests on trial", n-3)
	}
	c.readmit(host)
	host.load.Begin() // the request that is its trial is under way
	taken := 0
	for range 200 {
		if c.Pick(&Choice{Rand: global{}}) == host {
			taken++
		}
	}
	if taken > 5 {
		t.Errorf("it got %d of 200 requests during its trial", taken)
	}
	host.load.End()
	broken.Store(false)
	until(t, "one success ends the trial", func() bool { return ask(t, c) == host && !host.outlier.trial.Load() })
	host.load.Begin()
	defer host.load.End()
	taken = 0
	for range 200 {
		if c.Pick(&Choice{Rand: global{}}) == host {
			taken++
		}
	}
	if taken < 90 {
		t.Errorf("it got %d of 200 requests after its trial", taken)
	}
}

// Who is alone is asked, on trial or not.
func TestTheLastHostIsAlwaysAsked(t *testing.T) {
	a := newApp(t, hello)
	c := newManager(t).Update(config(ejecting("c"), a.address))["c"]
	h := c.view.Load().hosts[0]
	h.outlier.trial.Store(true)
	h.load.Begin()
	defer h.load.End()
	if c.Pick(&Choice{Rand: global{}}) != h {
		t.Error("there was no host")
	}
}

// Ten percent of two hosts are none.
func TestEjectionsAreBounded(t *testing.T) {
	sick, broken := sickly(t)
	broken.Store(true)
	conf := ejecting("c")
	conf.Outlier.MaxEjectionPercent = 10
	c := newManager(t).Update(config(conf, sick.address, newApp(t, hello).address))["c"]
	for range 20 {
		ask(t, c)
	}
	if n := c.state().Stats.EjectionsTotal; n != 0 {
		t.Errorf("%d ejections", n)
	}
}

// What answers in the own zone gets the requests; when it is ejected, or not ready, those of other zones do, until it is back.
func TestFailoverOfLocalities(t *testing.T) {
	near, broken := sickly(t)
	far := newApp(t, hello)
	conf := ejecting("c")
	conf.LB.LocalityWeighted, conf.LB.PanicThreshold = true, 0
	m := newManager(t)
	endpoints := func(ready bool) []*l7.Endpoint {
		out := []*l7.Endpoint{at(&l7.Endpoint{Address: near.address}, "near", 0, 1), at(&l7.Endpoint{Address: far.address}, "far", 1, 1)}
		if !ready {
			out[0].Health = l7.Unhealthy
		}
		return out
	}
	c := m.Update(assigned(conf, endpoints(true)...))["c"]
	moves := func(what string, to, from *app) {
		t.Helper()
		before, others := to.requests.Load(), from.requests.Load()
		for range 20 {
			ask(t, c)
		}
		if to.requests.Load() != before+20 || from.requests.Load() != others {
			t.Errorf("%s: %d of 20 requests", what, to.requests.Load()-before)
		}
	}
	moves("all is well", near, far)
	broken.Store(true)
	until(t, "it is ejected", func() bool {
		ask(t, c)
		return c.state().Stats.EjectionsActive == 1
	})
	moves("ejected", far, near)
	broken.Store(false)
	for _, h := range c.view.Load().hosts {
		if h.outlier.ejected.Load() {
			c.readmit(h)
		}
	}
	moves("back", near, far)
	m.Update(assigned(conf, endpoints(false)...))
	moves("not ready", far, near)
	m.Update(assigned(conf, endpoints(true)...))
	moves("ready", near, far)
}

// Half of the own zone carries 70 %, and the rest goes elsewhere.
func TestSpillOverOfLocalities(t *testing.T) {
	conf := cluster("c", l7.UpstreamHTTP1)
	conf.LB.LocalityWeighted, conf.LB.PanicThreshold = true, 0
	var list []*l7.Endpoint
	for i := range 4 {
		list = append(list, at(&l7.Endpoint{Address: newApp(t, hello).address}, []string{"near", "near", "far", "far"}[i], uint32(i/2), 2))
	}
	list[1].Health = l7.Unhealthy
	c := newManager(t).Update(assigned(conf, list...))["c"]
	far := 0
	const n = 2000
	for range n {
		if h := c.Pick(&Choice{Rand: global{}}); h.Endpoint().Priority == 1 {
			far++
		} else if h.Endpoint() == list[1] {
			t.Fatal("a host that is not ready was chosen")
		}
	}
	if far < n*3/10-140 || far > n*3/10+140 { // seven standard deviations
		t.Errorf("%d of %d went to the other zone, want 30 %%", far, n)
	}
}

func TestConnectionsCountTowardEjection(t *testing.T) {
	conf := ejecting("c")
	c := newManager(t).Update(config(conf, tcp.Nobody(t), newApp(t, hello).address))["c"]
	dial := func() error {
		h := c.Pick(&Choice{Rand: global{}})
		nc, release, err := c.Dial(context.Background(), h)
		if err == nil {
			nc.Close()
			release()
		}
		return err
	}
	until(t, "who cannot be reached is ejected", func() bool {
		_ = dial()
		return c.state().Stats.EjectionsActive == 1
	})
	for range 10 {
		if err := dial(); err != nil {
			t.Error(err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	other := c.Pick(&Choice{Rand: global{}})
	for range 10 {
		if _, _, err := c.Dial(gone, other); err == nil {
			t.Fatal("a connection without a client")
		}
	}
	if s := c.state().Stats; s.EjectionsActive != 1 {
		t.Error("a client that gives up is no failure of the host")
	}
}
