package gateway

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// TCPSettings is what the DestinationRule of a destination says of connections to it.
type TCPSettings struct {
	// Idle is how long a connection may carry nothing, 0 for ever, Lifetime how long it may last; nil is not said.
	Idle, Lifetime *time.Duration
	// BySource keeps clients to the host that they had before.
	BySource bool
}

// tcpSettings finds them; a destination without a rule has none.
func (t *translation) tcpSettings(d destinationTarget) TCPSettings {
	rule := t.view.DestinationRule(d.host, t.namespace)
	if rule == nil {
		return TCPSettings{}
	}
	pool := connectionPool(rule.Spec.TrafficPolicy, d.port)
	for _, s := range rule.Spec.Subsets {
		if d.subset != "" && s.GetName() == d.subset {
			if own := connectionPool(s.TrafficPolicy, d.port); own != nil {
				pool = own
			}
		}
	}
	hash := t.hash(d)
	return TCPSettings{
		Idle: positive(pool.GetTcp().GetIdleTimeout(), true), Lifetime: positive(pool.GetTcp().GetMaxConnectionDuration(), false),
		BySource: hash != nil && hash.SourceIP,
	}
}

// positive is nil for a duration that is not set, or makes no sense.
func positive(d *durationpb.Duration, zero bool) *time.Duration {
	if d == nil || d.CheckValid() != nil || d.AsDuration() < 0 || !zero && d.AsDuration() == 0 {
		return nil
	}
	out := d.AsDuration()
	if out > 0 {
		out = max(out, time.Millisecond) // Envoy refuses what is shorter
	}
	return &out
}

// connectionPool is the settings of a port: its own, or else those of all.
func connectionPool(policy *networkingapi.TrafficPolicy, port uint32) *networkingapi.ConnectionPoolSettings {
	for _, p := range policy.GetPortLevelSettings() {
		if p.GetPort().GetNumber() == port {
			return p.ConnectionPool // they replace those of all ports as a whole
		}
	}
	return policy.GetConnectionPool()
}
