package proxy

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// demandTimeout is how long a connection waits for the control plane to tell what its address is.
const demandTimeout = 5 * time.Second

// Demander asks the control plane for a resource by its lookup key. On return the state has it, or the control plane has
// none of that name.
type Demander interface {
	Demand(ctx context.Context, key string) error
}

// decide is l4.Decide, preceded in on-demand mode by asking for what the decision needs.
func (i *Instance) decide(ctx context.Context, state *l4.State, c l4.Conn) (l4.Route, error) {
	state = i.demandAddress(ctx, state, c.SourceWorkload, c.Dst.Addr())
	route, err := l4.Decide(state, c)
	if i.deps.Demander == nil || !errors.Is(err, l4.ErrUnknownWaypoint) {
		return route, err
	}
	for _, gateway := range waypointsOf(state, c) {
		i.demand(ctx, gateway.String())
	}
	return l4.Decide(i.deps.Store.Load(), c)
}

// demandAddress returns a state that knows addr, if the control plane does.
func (i *Instance) demandAddress(ctx context.Context, state *l4.State, local *l4.Workload, addr netip.Addr) *l4.State {
	if i.deps.Demander == nil || state.WorkloadByIP(local.Network, addr) != nil || len(state.ServicesByVIP(local.Network, addr)) > 0 {
		return state
	}
	i.demand(ctx, l4.NetworkAddress{Network: local.Network, IP: addr.Unmap()}.String())
	return i.deps.Store.Load()
}

func (i *Instance) demand(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(ctx, demandTimeout)
	defer cancel()
	if err := i.deps.Demander.Demand(ctx, key); err != nil {
		i.deps.Log.Warn("the control plane does not answer; deciding by what is known", "wanted", key, "error", err)
	}
}

// waypointsOf lists the waypoints that a connection may have to pass.
func waypointsOf(state *l4.State, c l4.Conn) []l4.Gateway {
	var out []l4.Gateway
	if s := state.ServiceByVIP(c.SourceWorkload.Network, c.Dst.Addr(), c.SourceWorkload.Namespace); s != nil {
		if s.Waypoint != nil {
			out = append(out, *s.Waypoint)
		}
		for _, w := range s.WeightedWaypoints {
			out = append(out, w.Gateway)
		}
	}
	if w := state.WorkloadByIP(c.SourceWorkload.Network, c.Dst.Addr()); w != nil && w.Waypoint != nil {
		out = append(out, *w.Waypoint)
	}
	return out
}
