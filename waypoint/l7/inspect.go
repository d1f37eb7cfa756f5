package l7

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// connPredicate is a compiled filter_disabled: where a listener filter is not asked. nil is nowhere.
type connPredicate func(*Conn) bool

// holds is whether it is so for the connection.
func (p connPredicate) holds(c *Conn) bool { return p != nil && p(c) }

func compilePredicate(p *listenerv3.ListenerFilterChainMatchPredicate) (connPredicate, error) {
	switch k := p.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_AnyMatch:
		return func(*Conn) bool { return k.AnyMatch }, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		start, end := k.DestinationPortRange.GetStart(), k.DestinationPortRange.GetEnd()
		return func(c *Conn) bool {
			port := int32(c.Destination.Port())
			return port >= start && port < end
		}, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		m, err := compilePredicate(k.NotMatch)
		return func(c *Conn) bool { return !m(c) }, strict.At(err, "not_match")
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		ms, err := compilePredicates(k.OrMatch.GetRules())
		return func(c *Conn) bool {
			for _, m := range ms {
				if m(c) {
					return true
				}
			}
			return false
		}, strict.At(err, "or_match")
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		ms, err := compilePredicates(k.AndMatch.GetRules())
		return func(c *Conn) bool {
			for _, m := range ms {
				if !m(c) {
					return false
				}
			}
			return true
		}, strict.At(err, "and_match")
	}
	return nil, strict.Errorf("rule", "is required")
}

func compilePredicates(ps []*listenerv3.ListenerFilterChainMatchPredicate) ([]connPredicate, error) {
	var out []connPredicate
	for i, p := range ps {
		m, err := compilePredicate(p)
		if err != nil {
			return nil, strict.AtIndex(err, "rules", i)
		}
		out = append(out, m)
	}
	return out, nil
}
