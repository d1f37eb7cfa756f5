package envoy

import (
	"cmp"
	"math"
	"slices"
	"strings"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Labels that stand for where something runs, in failoverPriority.
const (
	labelNetwork = "topology.istio.io/network"
	labelCluster = "topology.istio.io/cluster"
	labelRegion  = "topology.kubernetes.io/region"
	labelZone    = "topology.kubernetes.io/zone"
	labelSubzone = "topology.istio.io/subzone"
	labelNode    = "kubernetes.io/hostname"
)

// Whereabouts is where a proxy or an endpoint runs, as failoverPriority sees it.
type Whereabouts struct {
	Locality               Locality
	Node, Network, Cluster string
	Labels                 map[string]string
}

// label is one of those that users compare.
func (w *Whereabouts) label(name string) string {
	switch name {
	case labelNetwork:
		return w.Network
	case labelCluster:
		return w.Cluster
	case labelRegion:
		return w.Locality.Region
	case labelZone:
		return w.Locality.Zone
	case labelSubzone:
		return w.Locality.Subzone
	case labelNode:
		return w.Node
	}
	return w.Labels[name]
}

// Localities is how the traffic of a cluster is spread over localities. The zero value leaves them aside.
type Localities struct {
	setting  *networkingapi.LocalityLoadBalancerSetting
	failover bool // some endpoints are preferred, and there is something that notices when they fail
	// within are labels of places: endpoints at others than the proxy's are not used at all, whatever else holds.
	within []string
}

// Localities finds what holds for a service: what its DestinationRule says, else what the service itself prefers, else what the mesh says.
func (m Mesh) Localities(policy *networkingapi.TrafficPolicy, prefers *workload.LoadBalancing) Localities {
	out := Localities{setting: m.Config.GetLocalityLbSetting(), failover: policy.GetOutlierDetection() != nil}
	if prefers.GetMode() == workload.LoadBalancing_STRICT {
		out.within = scopeLabels(prefers.GetRoutingPreference())
	}
	if own := policy.GetLoadBalancer().GetLocalityLbSetting(); own != nil {
		out.setting = own
	} else if scopes := prefers.GetRoutingPreference(); len(scopes) > 0 && prefers.GetMode() == workload.LoadBalancing_FAILOVER {
		// Without outlier detection, too: there it is readiness that endpoints fail by.
		return Localities{setting: &networkingapi.LocalityLoadBalancerSetting{FailoverPriority: scopeLabels(scopes)}, failover: true}
	} else if out.setting == nil {
		out.setting = &networkingapi.LocalityLoadBalancerSetting{} // is enabled
	}
	if e := out.setting.GetEnabled(); e != nil && !e.GetValue() {
		return Localities{within: out.within}
	}
	return out
}

// scopeLabels are the labels that a preference compares.
func scopeLabels(scopes []workload.LoadBalancing_Scope) []string {
	var out []string
	for _, s := range scopes {
		switch s {
		case workload.LoadBalancing_NETWORK:
			out = append(out, labelNetwork)
		case workload.LoadBalancing_CLUSTER:
			out = append(out, labelCluster)
		case workload.LoadBalancing_REGION:
			out = append(out, labelRegion)
		case workload.LoadBalancing_ZONE:
			out = append(out, labelZone)
		case workload.LoadBalancing_SUBZONE:
			out = append(out, labelSubzone)
		case workload.LoadBalancing_NODE:
			out = append(out, labelNode)
		case workload.LoadBalancing_UNSPECIFIED_SCOPE:
		}
	}
	return out
}

// Weighted is whether localities get traffic by their weights.
func (l Localities) Weighted() bool { return l.setting != nil }

// Relative is whether proxies at different places see the endpoints differently.
func (l Localities) Relative() bool {
	return len(l.within) > 0 || l.setting != nil && (l.failover || len(l.setting.GetDistribute()) > 0)
}

// Failover is whether some endpoints are used only when others fail. Those that are not ready should be known then: how many there are
// decides how much the others are asked to carry.
func (l Localities) Failover() bool {
	return l.setting != nil && l.failover && len(l.setting.GetDistribute()) == 0
}

// Assignment is the endpoints of a cluster as a proxy sees them from where it is. The order of endpoints does not matter.
func (l Localities) Assignment(cluster string, endpoints []Endpoint, from *Whereabouts) *endpointv3.ClusterLoadAssignment {
	endpoints = l.reachable(endpoints, from)
	if l.Failover() {
		return assignment(cluster, endpoints, func(e *Endpoint) int { return l.priority(from, e) })
	}
	out := Assignment(cluster, endpoints)
	if len(l.setting.GetDistribute()) > 0 {
		l.distribute(out, from.Locality)
	}
	return out
}

// reachable leaves out the endpoints that are not where the proxy is, if they have to be. A place that is not known is none that two
// have in common. Endpoints behind a waypoint stay: it is the waypoint that chooses among them then.
func (l Localities) reachable(endpoints []Endpoint, from *Whereabouts) []Endpoint {
	if len(l.within) == 0 {
		return endpoints
	}
	var out []Endpoint
	for i := range endpoints {
		e := &endpoints[i]
		at := e.whereabouts()
		shares := func(label string) bool { return from.label(label) != "" && from.label(label) == at.label(label) }
		if e.Waypoint.IsValid() || !slices.ContainsFunc(l.within, func(label string) bool { return !shares(label) }) {
			out = append(out, *e)
		}
	}
	return out
}

func (e *Endpoint) whereabouts() Whereabouts {
	return Whereabouts{Locality: e.Locality, Node: e.Node, Network: e.Network, Cluster: e.Cluster, Labels: e.Labels}
}

// priority is 0 for the endpoints that are preferred; there may be gaps.
func (l Localities) priority(from *Whereabouts, e *Endpoint) int {
	at := e.whereabouts()
	byLabels := 0
	labels := l.setting.GetFailoverPriority()
	for i, label := range labels {
		name, value, given := strings.Cut(label, "=")
		if !given {
			value = from.label(name)
		}
		if at.label(name) != value {
			byLabels = len(labels) - i
			break
		}
	}
	if len(labels) > 0 && len(l.setting.GetFailover()) == 0 {
		return byLabels
	}
	// There are five steps by locality within each of those by label.
	return 5*byLabels + l.distance(from.Locality, e.Locality)
}

// distance is 0 within a subzone, 1 within a zone, 2 within a region, 3 elsewhere, and 4 where the region does not fail over to.
func (l Localities) distance(from, to Locality) int {
	switch {
	case from == to:
		return 0
	case from.Region == to.Region && from.Zone == to.Zone:
		return 1
	case from.Region == to.Region:
		return 2
	}
	for _, f := range l.setting.GetFailover() {
		if f.GetFrom() == from.Region {
			if f.GetTo() != to.Region {
				return 4
			}
			break
		}
	}
	return 3
}

// distribute weighs the localities by the first share of traffic that is for proxies there; those that it does not name get nothing.
func (l Localities) distribute(out *endpointv3.ClusterLoadAssignment, from Locality) {
	at := slices.IndexFunc(l.setting.GetDistribute(), func(d *networkingapi.LocalityLoadBalancerSetting_Distribute) bool {
		return matchesLocality(d.GetFrom(), from)
	})
	if at < 0 {
		return
	}
	to := l.setting.GetDistribute()[at].GetTo()
	rest := out.Endpoints
	out.Endpoints = nil
	for _, pattern := range bySpecificity(to) {
		var taken, left []*endpointv3.LocalityLbEndpoints
		total := uint64(0)
		for _, group := range rest {
			at := group.GetLocality()
			if matchesLocality(pattern, Locality{at.GetRegion(), at.GetZone(), at.GetSubZone()}) {
				taken = append(taken, group)
				total += uint64(group.GetLoadBalancingWeight().GetValue())
			} else {
				left = append(left, group)
			}
		}
		rest = left
		for _, group := range taken {
			// What is for several localities is for each by the weight of its endpoints.
			share := float64(to[pattern]) * float64(group.GetLoadBalancingWeight().GetValue()) / float64(total)
			if weight := uint32(math.Ceil(share)); weight > 0 {
				group.LoadBalancingWeight = u32(weight)
				out.Endpoints = append(out.Endpoints, group)
			}
		}
	}
	slices.SortFunc(out.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		x, y := a.GetLocality(), b.GetLocality()
		return cmp.Or(strings.Compare(x.GetRegion(), y.GetRegion()), strings.Compare(x.GetZone(), y.GetZone()), strings.Compare(x.GetSubZone(), y.GetSubZone()))
	})
}

// bySpecificity has the patterns that name most first: of several that match a locality it counts to one.
func bySpecificity(to map[string]uint32) []string {
	out := make([]string, 0, len(to))
	for pattern := range to {
		out = append(out, pattern)
	}
	parts := func(pattern string) (n int) {
		for part := range strings.SplitSeq(pattern, "/") {
			if part != "" && part != "*" {
				n++
			}
		}
		return n
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(parts(b)-parts(a), strings.Compare(a, b)) })
	return out
}

// matchesLocality is for patterns region/zone/subzone, of which parts may be * and the last ones missing.
func matchesLocality(pattern string, at Locality) bool {
	region, rest, _ := strings.Cut(pattern, "/")
	zone, subzone, _ := strings.Cut(rest, "/")
	matches := func(part, value string) bool { return part == "*" || part == value }
	return matches(region, at.Region) && (zone == "" || matches(zone, at.Zone)) && (subzone == "" || matches(subzone, at.Subzone))
}
