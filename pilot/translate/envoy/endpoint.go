package envoy

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Endpoint is one address behind a service.
type Endpoint struct {
	// Address is an IP address, or a name to be resolved.
	Address string
	Port    uint32
	// HBONE says that it is reached through the mesh's tunnel, Waypoint that it is so by way of this address and port.
	HBONE    bool
	Waypoint netip.AddrPort
	// Sidecar says that a proxy beside the endpoint takes mutual TLS of the mesh at its port. HBONE goes before that.
	Sidecar bool
	// Identity is what must stand in the certificate of whoever terminates HBONE, or mutual TLS: spiffe://….
	Identity string
	// Unhealthy endpoints are known but not used unless all are.
	Unhealthy bool
	// Draining endpoints are about to go, and serve the sessions that they have.
	Draining bool
	Weight   uint32
	Locality Locality
	// Workload describes it in telemetry: name;namespace;canonical name;canonical revision;cluster.
	Workload string
	// Node, Network, Cluster and Labels are what a proxy may prefer an endpoint by; see [Localities].
	Node, Network, Cluster string
	Labels                 map[string]string
}

// Locality is where an endpoint runs.
type Locality struct{ Region, Zone, Subzone string }

func compareLocality(a, b Locality) int {
	return cmp.Or(strings.Compare(a.Region, b.Region), strings.Compare(a.Zone, b.Zone), strings.Compare(a.Subzone, b.Subzone))
}

// Assignment is the endpoints of a cluster. Their order does not matter.
func Assignment(cluster string, endpoints []Endpoint) *endpointv3.ClusterLoadAssignment {
	return assignment(cluster, endpoints, func(*Endpoint) int { return 0 })
}

// assignment groups endpoints by what they are preferred by, the lowest first, and by where they are.
func assignment(cluster string, endpoints []Endpoint, priority func(*Endpoint) int) *endpointv3.ClusterLoadAssignment {
	type ranked struct {
		*Endpoint
		rank int
	}
	sorted := make([]ranked, len(endpoints))
	for i := range endpoints {
		sorted[i] = ranked{&endpoints[i], priority(&endpoints[i])}
	}
	slices.SortFunc(sorted, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), compareLocality(a.Locality, b.Locality), strings.Compare(a.Address, b.Address),
			cmp.Compare(a.Port, b.Port), a.Waypoint.Compare(b.Waypoint))
	})
	out := &endpointv3.ClusterLoadAssignment{ClusterName: cluster}
	var group *endpointv3.LocalityLbEndpoints
	var last ranked
	level := uint32(0) // priorities have no gaps
	for _, e := range sorted {
		if group != nil && e.rank != last.rank {
			level++
		}
		if group == nil || e.Locality != last.Locality || e.rank != last.rank {
			group = &endpointv3.LocalityLbEndpoints{LoadBalancingWeight: u32(0), Priority: level}
			group.Locality = &corev3.Locality{Region: e.Locality.Region, Zone: e.Locality.Zone, SubZone: e.Locality.Subzone}
			out.Endpoints = append(out.Endpoints, group)
		}
		last = e
		weight := max(1, e.Weight)
		group.LoadBalancingWeight.Value += weight
		group.LbEndpoints = append(group.LbEndpoints, e.resource(weight))
	}
	return out
}

func (e Endpoint) resource(weight uint32) *endpointv3.LbEndpoint {
	target := net.JoinHostPort(e.Address, number(e.Port))
	out := &endpointv3.LbEndpoint{LoadBalancingWeight: u32(weight), HealthStatus: corev3.HealthStatus_HEALTHY}
	switch {
	case e.Draining:
		out.HealthStatus = corev3.HealthStatus_DRAINING
	case e.Unhealthy:
		out.HealthStatus = corev3.HealthStatus_UNHEALTHY
	}
	address := socketAddress(e.Address, e.Port)
	meta := map[string]*structpb.Struct{}
	if e.Workload != "" {
		meta[istioMetadata] = fields(map[string]*structpb.Value{"workload": text(e.Workload)})
	}
	if e.HBONE {
		address = internalAddress(ConnectOriginate, target)
		tunnel := map[string]*structpb.Value{"local": text(target)}
		if e.Waypoint.IsValid() {
			tunnel["waypoint"] = text(e.Waypoint.String())
			// Endpoints of one service behind several waypoint pods are told apart by the pod.
			address = internalAddress(ConnectOriginate, target+"/"+e.Waypoint.String())
		}
		meta[originalDstMetadata] = fields(tunnel)
		meta[socketMatchMetadata] = fields(map[string]*structpb.Value{"tunnel": text("h2")})
	} else if e.Sidecar {
		meta[socketMatchMetadata] = fields(map[string]*structpb.Value{"tlsMode": text("istio")})
	}
	if e.Identity != "" && (e.HBONE || e.Sidecar) {
		meta[MeshMetadata] = fields(map[string]*structpb.Value{"identity": text(e.Identity)})
	}
	if len(meta) > 0 {
		out.Metadata = &corev3.Metadata{FilterMetadata: meta}
	}
	out.HostIdentifier = &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}}
	return out
}
