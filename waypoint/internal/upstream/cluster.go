package upstream

import (
	"context"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/lb"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Cluster is a set of hosts that serve the same. Safe for concurrent use.
type Cluster struct {
	// immutable
	manager *Manager
	name    string

	gauges gauges
	stats  counters
	view   atomic.Pointer[view]

	mu       sync.Mutex // guards updates and the rest
	hosts    map[l7.EndpointKey]*Host
	dynamic  map[dynamicKey]*Host
	resolved *l7.Endpoints // by DNS; nil before the first answer
	resolver context.CancelFunc
	gone     bool
}

// view is what a request sees of a cluster, immutable.
type view struct {
	conf      *l7.Cluster
	endpoints *l7.Endpoints
	hosts     []*Host // members of set, in order
	tells     bool    // of its clients
	set       *lb.Set
	// onConn is the endpoint that stands for the destination of the client's connection (encap); nil for most clusters.
	onConn *l7.Endpoint
}

func newCluster(m *Manager, name string) *Cluster {
	return &Cluster{manager: m, name: name, hosts: map[l7.EndpointKey]*Host{}, dynamic: map[dynamicKey]*Host{}}
}

// Name of the cluster.
func (c *Cluster) Name() string { return c.name }

// update makes conf and endpoints those in force.
func (c *Cluster) update(conf *l7.Cluster, endpoints *l7.Endpoints) {
	old := c.view.Load()
	if old != nil && old.conf == conf && (old.endpoints == endpoints || isDNS(conf)) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if isDNS(conf) {
		if old == nil || old.conf.Static != conf.Static || old.conf.DNSRefresh != conf.DNSRefresh || c.resolver == nil {
			c.resolveLocked(conf)
		}
		endpoints = c.resolved
	} else if c.resolver != nil {
		c.resolver()
		c.resolver, c.resolved = nil, nil
	}
	c.applyLocked(conf, endpoints)
}

// applyLocked makes a view of the endpoints; called with mu held.
func (c *Cluster) applyLocked(conf *l7.Cluster, endpoints *l7.Endpoints) {
	old := c.view.Load()
	renew := old != nil && !sameTransport(old.conf, conf)
	v := &view{conf: conf, endpoints: endpoints, tells: conf.TellsClients()}
	var members []lb.Member
	seen := make(map[l7.EndpointKey]*Host)
	if endpoints != nil {
		for _, e := range endpoints.List {
			if e.Internal != "" && !e.Address.IsValid() {
				v.onConn = e
				continue
			}
			key := e.Key()
			if seen[key] != nil {
				continue
			}
			h := c.hosts[key]
			if h == nil {
				h = newHost(c, e)
			}
			if before := h.endpoint.Swap(e); conf.CloseOnHealthFailure && before.Health != e.Health && e.Health == l7.Unhealthy {
				h.retire(false)
			}
			seen[key] = h
			v.hosts = append(v.hosts, h)
			members = append(members, member(conf, e, h))
		}
	}
	v.set = lb.NewSet(members, balancing(conf, endpoints))
	// First the view, so that no request chooses a host that is on its way out.
	c.view.Store(v)
	gone := c.hosts
	c.hosts = seen
	for key, h := range gone {
		if seen[key] != h {
			h.retire(true)
		} else if renew {
			h.retire(false)
		}
	}
	for key, h := range c.dynamic {
		if h.root.gone.Load() && h.root != h {
			delete(c.dynamic, key)
			h.retire(true)
		} else if renew {
			h.retire(false)
		}
	}
}

func member(conf *l7.Cluster, e *l7.Endpoint, h *Host) lb.Member {
	m := lb.Member{
		Host: h.load, Weight: e.Weight, Priority: e.Priority, LocalityWeight: e.LocalityWeight,
		Locality: e.Locality.Region + "/" + e.Locality.Zone + "/" + e.Locality.SubZone,
	}
	if conf.LB.HashHostname && e.Hostname != "" {
		m.HashKey = e.Hostname
	} else {
		m.HashKey = h.Address()
	}
	switch e.Health {
	case l7.Healthy:
	case l7.Degraded:
		m.Health = lb.Degraded
	case l7.Unhealthy, l7.Draining:
		m.Health = lb.Unhealthy
	}
	if h.outlier.ejected.Load() {
		m.Health = lb.Unhealthy
	}
	return m
}

func balancing(conf *l7.Cluster, endpoints *l7.Endpoints) lb.Config {
	out := lb.Config{
		Choices: conf.LB.Choices, MinRing: conf.LB.MinRing, MaxRing: conf.LB.MaxRing, TableSize: conf.LB.Table,
		PanicPercent: conf.LB.PanicThreshold, LocalityWeighted: conf.LB.LocalityWeighted,
	}
	if endpoints != nil {
		out.Overprovisioning, out.WeightedHealth = endpoints.Overprovisioning, endpoints.Weighted
	}
	switch conf.LB.Policy {
	case l7.LBRoundRobin, l7.LBClusterProvided:
		out.Policy = lb.RoundRobin
	case l7.LBLeastRequest:
		out.Policy = lb.LeastRequest
	case l7.LBRandom:
		out.Policy = lb.Random
	case l7.LBRingHash:
		out.Policy = lb.RingHash
	case l7.LBMaglev:
		out.Policy = lb.Maglev
	}
	return out
}

// Choice is what a host is chosen by.
type Choice struct {
	Rand l7.Rand
	// Hash counts when HashOK.
	Hash   uint64
	HashOK bool
	// Conn is the client's connection, for clusters whose host is its destination.
	Conn *l7.Conn
	// Tried are the hosts of the attempts before, to be avoided; at most Attempts choices are thrown away for that.
	Tried    []*Host
	Attempts int
	// Session is the host to be taken if it is there and may be; where it is strict, no other one is.
	Session l7.SessionHost

	request lb.Request // here, as it would be allocated for each choice
}

// Pick chooses a host; nil when there is none that may be taken.
func (c *Cluster) Pick(ch *Choice) *Host {
	v := c.view.Load()
	if v.conf.Discovery == l7.DiscoveryOriginalDst || v.onConn != nil {
		return c.destination(v, ch.Conn)
	}
	if ch.Session.Address != "" {
		h := v.session(ch.Session.Address)
		if h == nil && ch.Session.Strict {
			c.stats.rqNoneHealthy.Add(1)
			return nil
		}
		if h != nil {
			return c.pass(v, h, ch.Conn)
		}
	}
	r := &ch.request
	*r = lb.Request{Rand: ch.Rand, Hash: ch.Hash, HasHash: ch.HashOK}
	if len(ch.Tried) > 0 {
		r.Attempts = ch.Attempts
		r.Exclude = func(i int) bool {
			return slices.ContainsFunc(ch.Tried, func(h *Host) bool { return h.root == v.hosts[i] })
		}
	}
	for attempt := 1; ; attempt++ {
		i, ok := v.set.Pick(r)
		if !ok {
			c.stats.rqNoneHealthy.Add(1)
			return nil
		}
		h := v.hosts[i]
		if attempt < mostChoices && h.spared(v.conf, ch.Rand) {
			continue
		}
		return c.pass(v, h, ch.Conn)
	}
}

// pass is the part of a host that serves the client, where the cluster tells of its clients.
func (c *Cluster) pass(v *view, h *Host, conn *l7.Conn) *Host {
	if v.tells {
		return c.told(h, conn)
	}
	return h
}

// session finds a host by its address; nil when it is not there, or in no health for it.
func (v *view) session(address string) *Host {
	for _, h := range v.hosts {
		if h.address == address {
			if h.outlier.ejected.Load() || !v.conf.LB.SessionHealth[h.Endpoint().Health] {
				return nil
			}
			return h
		}
	}
	return nil
}

// Knows is whether a host of the address is there, in whatever health.
func (c *Cluster) Knows(address string) bool {
	return slices.ContainsFunc(c.view.Load().hosts, func(h *Host) bool { return h.address == address })
}

// mostChoices are how many hosts are drawn where some of them are spared: they have just begun, or just come back.
const mostChoices = 8

// spared is whether a host that is drawn should rather be left alone: it carries the one request that shows whether it is well again,
// or has begun so lately that it is not to get its full share.
func (h *Host) spared(conf *l7.Cluster, rnd l7.Rand) bool {
	if conf.Outlier != nil && h.outlier.trial.Load() && h.load.Active() > 0 {
		return true
	}
	return conf.LB.SlowStart > 0 && !h.warm(&conf.LB, rnd)
}

// warm is whether a host that is drawn is taken: the longer it is there, the more often.
func (h *Host) warm(conf *l7.LB, rnd l7.Rand) bool {
	age := time.Since(h.since)
	if age >= conf.SlowStart {
		return true
	}
	share := math.Pow(float64(age)/float64(conf.SlowStart), 1/max(conf.SlowStartAggression, 0.01))
	share = max(share, conf.SlowStartMin/100)
	return float64(rnd.Uint64()%1024) < share*1024
}

// Config of the cluster that is in force.
func (c *Cluster) Config() *l7.Cluster { return c.view.Load().conf }

// connectTimeout of new connections.
func (c *Cluster) connectTimeout() time.Duration {
	if d := c.Config().Connect; d > 0 {
		return d
	}
	return 5 * time.Second
}

// drain ends a cluster that is no longer configured: what is open goes on.
func (c *Cluster) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.resolver != nil {
		c.resolver()
		c.resolver = nil
	}
	for _, h := range c.allLocked() {
		h.retire(true)
	}
}

// abort closes all connections.
func (c *Cluster) abort() {
	for _, h := range c.all() {
		h.abort()
	}
}

func (c *Cluster) closeIdle() {
	for _, h := range c.all() {
		h.retire(false)
	}
}

func (c *Cluster) all() []*Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allLocked()
}

func (c *Cluster) allLocked() []*Host {
	return append(slices.Collect(maps.Values(c.hosts)), slices.Collect(maps.Values(c.dynamic))...)
}

// Dial opens a connection for bytes to the host, as TCP chains need it. Release is called when it was closed.
func (c *Cluster) Dial(ctx context.Context, h *Host) (nc net.Conn, release func(), err error) {
	if !c.gauges.connections.take(c.Config().Breakers.MaxConnections) {
		c.stats.cxOverflow.Add(1)
		return nil, nil, &Error{Reason: Overflow, Unsent: true, Err: errOverflow}
	}
	h.load.Begin()
	h.stats.cxActive.Add(1)
	release = func() {
		h.load.End()
		h.stats.cxActive.Add(-1)
		c.gauges.connections.give()
	}
	to, err := h.dial(ctx, "")
	if err != nil {
		release()
		if ctx.Err() == nil {
			c.Failed(h, Broken(err).Reason == ConnectionTimeout)
		}
		return nil, nil, err
	}
	c.connected(h)
	return to.Conn, release, nil
}
