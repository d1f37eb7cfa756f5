package upstream

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Of DNS clusters that do not say: how often names are looked up, and how long that may take.
const (
	defaultRefresh = 5 * time.Second
	lookupTimeout  = 10 * time.Second
)

func isDNS(conf *l7.Cluster) bool {
	return conf.Discovery == l7.DiscoveryStrictDNS || conf.Discovery == l7.DiscoveryLogicalDNS
}

// resolveLocked starts to look up the names of conf, instead of those before.
func (c *Cluster) resolveLocked(conf *l7.Cluster) {
	if c.resolver != nil {
		c.resolver()
	}
	m := c.manager
	if m.deps.Resolver == nil || conf.Static == nil || m.ctx.Err() != nil {
		c.resolver = nil
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	c.resolver = cancel
	m.work.Go(func() { c.resolve(ctx, conf) })
}

// resolve keeps the addresses of names current. A name that can't be looked up keeps the addresses it had.
func (c *Cluster) resolve(ctx context.Context, conf *l7.Cluster) {
	refresh := cmp.Or(conf.DNSRefresh, defaultRefresh)
	timer := time.NewTimer(0)
	defer timer.Stop()
	known := map[string][]netip.Addr{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := &l7.Endpoints{Cluster: c.name, Overprovisioning: conf.Static.Overprovisioning}
		for _, e := range conf.Static.List {
			if e.Host == "" {
				next.List = append(next.List, e)
				continue
			}
			looking, cancel := context.WithTimeout(ctx, lookupTimeout)
			found, err := c.manager.deps.Resolver.LookupNetIP(looking, "ip", e.Host)
			cancel()
			if err == nil && len(found) > 0 {
				slices.SortFunc(found, netip.Addr.Compare)
				known[e.Host] = found
			} else if ctx.Err() == nil {
				c.manager.deps.Log.Debug("look up", "cluster", c.name, "name", e.Host, "error", err)
			}
			next.List = append(next.List, resolved(conf, e, known[e.Host])...)
		}
		c.mu.Lock()
		if ctx.Err() == nil { // else another one has taken over
			c.resolved = next
			c.applyLocked(c.Config(), next)
		}
		c.mu.Unlock()
		timer.Reset(refresh)
	}
}

// resolved is an endpoint for each address, or for the first one of a logical host.
func resolved(conf *l7.Cluster, e *l7.Endpoint, addresses []netip.Addr) []*l7.Endpoint {
	var out []*l7.Endpoint
	for _, a := range addresses {
		one := *e
		one.Address = netip.AddrPortFrom(a.Unmap(), e.Port)
		one.Hostname = cmp.Or(e.Hostname, e.Host)
		out = append(out, &one)
		if conf.Discovery == l7.DiscoveryLogicalDNS {
			break
		}
	}
	return out
}
