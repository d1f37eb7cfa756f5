package l7

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

func compileEndpoints(p *endpointv3.ClusterLoadAssignment) (*Endpoints, error) {
	if err := strict.Check(p); err != nil {
		return nil, err
	}
	return compileEndpointsChecked(p, false)
}

// compileEndpointsChecked is for messages that strict.Check has seen; names allows host names for addresses.
func compileEndpointsChecked(p *endpointv3.ClusterLoadAssignment, names bool) (*Endpoints, error) {
	e := &Endpoints{
		Cluster:          p.GetClusterName(),
		Overprovisioning: uint32Or(p.GetPolicy().GetOverprovisioningFactor(), 140),
		Weighted:         p.GetPolicy().GetWeightedPriorityHealth(),
	}
	for i, l := range p.GetEndpoints() {
		loc := Locality{l.GetLocality().GetRegion(), l.GetLocality().GetZone(), l.GetLocality().GetSubZone()}
		for j, lb := range l.GetLbEndpoints() {
			ep, err := compileEndpoint(lb, names)
			if err != nil {
				return nil, strict.AtIndex(strict.AtIndex(err, "lb_endpoints", j), "endpoints", i)
			}
			ep.Locality, ep.Priority, ep.LocalityWeight = loc, l.GetPriority(), l.GetLoadBalancingWeight().GetValue()
			e.List = append(e.List, ep)
		}
	}
	return e, nil
}

func compileEndpoint(p *endpointv3.LbEndpoint, names bool) (*Endpoint, error) {
	e := &Endpoint{Weight: max(1, uint32Or(p.GetLoadBalancingWeight(), 1)), Hostname: p.GetEndpoint().GetHostname()}
	e.Health = healthOf(p.GetHealthStatus())
	md := p.GetMetadata().GetFilterMetadata()
	e.Identity = text(md[meshMetadata].GetFields(), "identity")
	e.Workload = text(md["istio"].GetFields(), "workload")
	if m := md["envoy.transport_socket_match"].GetFields(); len(m) > 0 {
		e.SocketMatch = map[string]string{}
		for k, v := range m {
			e.SocketMatch[k] = v.GetStringValue()
		}
	}
	switch a := p.GetEndpoint().GetAddress().GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		return e, strict.At(e.socket(a.SocketAddress, names), "endpoint.address.socket_address")
	case *corev3.Address_EnvoyInternalAddress:
		e.Internal, e.ID = a.EnvoyInternalAddress.GetServerListenerName(), a.EnvoyInternalAddress.GetEndpointId()
		var err error
		if e.Address, err = addressIn(md[originalDst], "local"); err == nil {
			e.Waypoint, err = addressIn(md[originalDst], "waypoint")
		}
		return e, err
	}
	return nil, strict.Errorf("endpoint.address", "is required")
}

func healthOf(s corev3.HealthStatus) Health {
	switch s {
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		return Unhealthy
	case corev3.HealthStatus_DRAINING:
		return Draining
	case corev3.HealthStatus_DEGRADED:
		return Degraded
	}
	return Healthy
}

// addressIn reads an address and port of the metadata; what is missing is not valid.
func addressIn(md *structpb.Struct, key string) (netip.AddrPort, error) {
	v := text(md.GetFields(), key)
	if v == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(v)
	if err != nil {
		return a, strict.Errorf("metadata.filter_metadata["+originalDst+"]."+key, "%v", err)
	}
	return a, nil
}

func (e *Endpoint) socket(p *corev3.SocketAddress, names bool) error {
	if p.GetProtocol() != corev3.SocketAddress_TCP {
		return strict.Errorf("protocol", "%v is not supported", p.GetProtocol())
	}
	if p.GetPortValue() > 65535 {
		return strict.Errorf("port_value", "is no port")
	}
	e.Port = uint16(p.GetPortValue())
	ip, err := netip.ParseAddr(p.GetAddress())
	switch {
	case err == nil:
		e.Address = netip.AddrPortFrom(ip, e.Port)
	case names:
		e.Host = p.GetAddress()
	default:
		return strict.Errorf("address", "%v", err)
	}
	return nil
}
