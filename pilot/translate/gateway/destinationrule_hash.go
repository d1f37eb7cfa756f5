package gateway

import (
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// hash says how requests to a destination pick their host; nil unless its DestinationRule balances by a hash.
func (t *translation) hash(d destinationTarget) *route.Hash {
	rule := t.view.DestinationRule(d.host, t.namespace)
	if rule == nil {
		return nil
	}
	policy := balancer(rule.Spec.TrafficPolicy, d.port)
	for _, s := range rule.Spec.Subsets {
		if d.subset != "" && s.GetName() == d.subset {
			if own := balancer(s.TrafficPolicy, d.port); own != nil {
				policy = own
			}
		}
	}
	ring := policy.GetConsistentHash()
	switch key := ring.GetHashKey().(type) {
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		if route.CheckName(key.HttpHeaderName) == nil {
			return &route.Hash{Header: key.HttpHeaderName}
		}
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if key.HttpQueryParameterName != "" {
			return &route.Hash{Query: key.HttpQueryParameterName}
		}
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if key.UseSourceIp {
			return &route.Hash{SourceIP: true}
		}
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		return hashCookie(key.HttpCookie)
	}
	return nil
}

func hashCookie(in *networkingapi.LoadBalancerSettings_ConsistentHashLB_HTTPCookie) *route.Hash {
	if route.CheckName(in.GetName()) != nil || route.CheckValue(in.GetPath()) != nil {
		return nil
	}
	cookie := &route.HashCookie{Name: in.Name, Path: in.Path}
	if in.Ttl != nil && in.Ttl.CheckValid() == nil {
		ttl := max(in.Ttl.AsDuration(), 0)
		cookie.TTL = &ttl
	}
	for _, a := range in.Attributes {
		if route.CheckName(a.GetName()) == nil && route.CheckValue(a.GetValue()) == nil {
			cookie.Attributes = append(cookie.Attributes, route.Header{Name: a.Name, Value: a.Value})
		}
	}
	return &route.Hash{Cookie: cookie}
}

// balancer is the load balancing of a port: its own, or else that of all.
func balancer(policy *networkingapi.TrafficPolicy, port uint32) *networkingapi.LoadBalancerSettings {
	for _, p := range policy.GetPortLevelSettings() {
		if p.GetPort().GetNumber() == port {
			// The settings of a port replace those of all ports as a whole.
			return p.LoadBalancer
		}
	}
	return policy.GetLoadBalancer()
}

// addHash keeps each way of hashing once.
func addHash(all []route.Hash, h *route.Hash) []route.Hash {
	if h == nil {
		return all
	}
	for _, old := range all {
		if old.Header == h.Header && old.Query == h.Query && old.SourceIP == h.SourceIP &&
			(old.Cookie == nil) == (h.Cookie == nil) && (h.Cookie == nil || old.Cookie.Name == h.Cookie.Name) {
			return all
		}
	}
	return append(all, *h)
}
