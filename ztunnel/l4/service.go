package l4

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// WeightedGateway is one of several waypoints that share a service's connections.
type WeightedGateway struct {
	Gateway Gateway
	Weight  uint32
}

// Service is a set of workloads behind a name and, usually, virtual addresses. It is immutable.
type Service struct {
	Name               string
	ServiceKey                          // namespace and host name
	VIPs               []NetworkAddress // in the resource's order
	CIDRs              []NetworkPrefix  // virtual ranges, masked
	Ports              []Port           // sorted by service port
	SubjectAltNames    []string
	Waypoint           *Gateway
	WeightedWaypoints  []WeightedGateway
	RoutingPreference  []workload.LoadBalancing_Scope
	Mode               workload.LoadBalancing_Mode
	HealthPolicy       workload.LoadBalancing_HealthPolicy
	IPFamilies         workload.IPFamilies
	Canonical          bool
	IngressUseWaypoint bool
	NamespaceOnly      bool // visible only to clients of its own namespace
}

// VisibleTo reports whether clients of namespace may know the service.
func (s *Service) VisibleTo(namespace string) bool {
	return !s.NamespaceOnly || s.Namespace == namespace
}

// FQDN is the service's host name.
func (s *Service) FQDN() string { return s.Hostname }

// parseService validates and compiles a resource. Its error is the reason sent to the control plane.
func parseService(p *workload.Service) (*Service, error) {
	if p.GetNamespace() == "" || p.GetHostname() == "" {
		return nil, fmt.Errorf("service has no namespace or no hostname")
	}
	s := &Service{
		Name: p.GetName(), ServiceKey: ServiceKey{p.GetNamespace(), p.GetHostname()},
		SubjectAltNames:   slices.Clone(p.GetSubjectAltNames()),
		RoutingPreference: slices.Clone(p.GetLoadBalancing().GetRoutingPreference()),
		Mode:              p.GetLoadBalancing().GetMode(), HealthPolicy: p.GetLoadBalancing().GetHealthPolicy(),
		IPFamilies: p.GetIpFamilies(), Canonical: p.GetCanonical(), IngressUseWaypoint: p.GetIngressUseWaypoint(),
		NamespaceOnly: p.GetVisibility() == workload.Service_NAMESPACE,
	}
	for _, address := range p.GetAddresses() {
		if err := s.addAddress(address); err != nil {
			return nil, err
		}
	}
	var err error
	if s.Ports, err = parsePorts(p.GetPorts()); err != nil {
		return nil, err
	}
	if s.Waypoint, err = parseGateway("waypoint", p.GetWaypoint()); err != nil {
		return nil, err
	}
	for _, weighted := range p.GetWeightedWaypoints() {
		gateway, err := parseGateway("weighted waypoint", weighted.GetDestination())
		if err != nil {
			return nil, err
		}
		if gateway == nil {
			return nil, fmt.Errorf("weighted waypoint has no destination")
		}
		s.WeightedWaypoints = append(s.WeightedWaypoints, WeightedGateway{*gateway, weighted.GetWeight()})
	}
	return s, nil
}

func (s *Service) addAddress(p *workload.NetworkAddress) error {
	ip, err := parseIP(p.GetAddress())
	if err != nil {
		return err
	}
	// A length that covers one address is the same as none.
	if p.Length == nil || int(p.GetLength()) == ip.BitLen() {
		s.VIPs = append(s.VIPs, NetworkAddress{p.GetNetwork(), ip})
		return nil
	}
	prefix, err := ip.Prefix(int(p.GetLength()))
	if err != nil {
		return fmt.Errorf("address %s/%d: %w", ip, p.GetLength(), err)
	}
	s.CIDRs = append(s.CIDRs, NetworkPrefix{p.GetNetwork(), prefix})
	return nil
}

func parseGateway(what string, p *workload.GatewayAddress) (*Gateway, error) {
	if p == nil {
		return nil, nil
	}
	port, err := parsePort(what, p.GetHboneMtlsPort())
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = HBONEPort
	}
	gateway := &Gateway{HBONEPort: port}
	switch destination := p.GetDestination().(type) {
	case *workload.GatewayAddress_Hostname:
		gateway.Service = ServiceKey{destination.Hostname.GetNamespace(), destination.Hostname.GetHostname()}
		if gateway.Service.Namespace == "" || gateway.Service.Hostname == "" {
			return nil, fmt.Errorf("%s has an incomplete host name %q", what, gateway.Service)
		}
	case *workload.GatewayAddress_Address:
		ip, err := parseIP(destination.Address.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		gateway.Address = NetworkAddress{destination.Address.GetNetwork(), ip}
	default:
		return nil, fmt.Errorf("%s has no destination", what)
	}
	return gateway, nil
}

func parsePorts(list []*workload.Port) ([]Port, error) {
	parsed := make([]Port, 0, len(list))
	for _, p := range list {
		service, err := parsePort("service", p.GetServicePort())
		if err != nil {
			return nil, err
		}
		target, err := parsePort("target", p.GetTargetPort())
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, Port{service, target, p.GetAppProtocol()})
	}
	slices.SortStableFunc(parsed, func(a, b Port) int { return int(a.Service) - int(b.Service) })
	return parsed, nil
}

func parsePort(what string, port uint32) (uint16, error) {
	if port > 65535 {
		return 0, fmt.Errorf("%s port %d is out of range", what, port)
	}
	return uint16(port), nil
}

func parseIP(raw []byte) (netip.Addr, error) {
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.Addr{}, fmt.Errorf("address of %d bytes is neither IPv4 nor IPv6", len(raw))
	}
	return ip.Unmap(), nil
}
