package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// hop is a waypoint instance picked to receive a connection.
type hop struct {
	endpoint
	sans []string // of the service the instance was picked through
}

// serviceWaypoint picks the waypoint that a connection to service passes, or nil when it passes none.
func serviceWaypoint(s *State, c Conn, service *Service) (*hop, error) {
	gateway := pickWaypoint(service, c.Rand)
	if gateway == nil {
		return nil, nil
	}
	waypoint, err := resolveWaypoint(s, c, *gateway)
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", service.ServiceKey, err)
	}
	return waypoint, nil
}

// pickWaypoint draws one of the weighted waypoints; without any weight it is the single one.
func pickWaypoint(service *Service, random func(uint64) uint64) *Gateway {
	var total uint64
	for _, w := range service.WeightedWaypoints {
		total += uint64(w.Weight)
	}
	if total == 0 {
		return service.Waypoint
	}
	draw := random(total)
	for i := range service.WeightedWaypoints {
		w := &service.WeightedWaypoints[i]
		if draw < uint64(w.Weight) {
			return &w.Gateway
		}
		draw -= uint64(w.Weight)
	}
	return service.Waypoint
}

// resolveWaypoint picks an instance of a waypoint. It is nil when the source is an instance itself: what comes out of a
// waypoint has passed it. A waypoint that is not known is an error, as going round it would go round its policy.
func resolveWaypoint(s *State, c Conn, gateway Gateway) (*hop, error) {
	if isInstance(s, gateway, c.SourceWorkload) {
		return nil, nil
	}
	service := gatewayService(s, gateway, c.SourceWorkload.Namespace)
	if service != nil {
		chosen, err := balance(s, c, service, gateway.HBONEPort)
		if errors.Is(err, ErrNoHealthyUpstream) {
			err = away{err}
		}
		if err != nil {
			return nil, fmt.Errorf("waypoint %s: %w", gateway, err)
		}
		return checkNetwork(c, gateway, hop{chosen, service.SubjectAltNames})
	}
	if ip := gateway.Address.IP; ip.IsValid() {
		if w := s.WorkloadByIP(gateway.Address.Network, ip); w != nil {
			return checkNetwork(c, gateway, hop{endpoint: endpoint{workload: w, ip: ip, port: gateway.HBONEPort}})
		}
	}
	return nil, fmt.Errorf("%w %s: is it deployed, and does the control plane know it?", ErrUnknownWaypoint, gateway)
}

func checkNetwork(c Conn, gateway Gateway, h hop) (*hop, error) {
	if h.workload.Network != c.SourceWorkload.Network {
		return nil, fmt.Errorf("%w: waypoint %s is in network %q, the source in %q",
			ErrCrossNetwork, gateway, h.workload.Network, c.SourceWorkload.Network)
	}
	if !h.ip.IsValid() {
		return nil, fmt.Errorf("%w: waypoint instance %s has no address", ErrNoHealthyUpstream, h.workload.UID)
	}
	return &h, nil
}

// gatewayService is the service a gateway reference names, or nil when it names a workload or nothing known.
func gatewayService(s *State, gateway Gateway, clientNamespace string) *Service {
	if !gateway.Address.IP.IsValid() {
		return s.Service(gateway.Service)
	}
	candidates := s.ServicesByVIP(gateway.Address.Network, gateway.Address.IP)
	if best := PreferredService(candidates, clientNamespace); best != nil {
		return best
	}
	if len(candidates) > 0 {
		return candidates[0]
	}
	return nil
}

// isInstance reports whether w is an instance of the gateway.
func isInstance(s *State, gateway Gateway, w *Workload) bool {
	if w == nil {
		return false
	}
	if !gateway.Address.IP.IsValid() {
		return w.Backs(gateway.Service) != nil
	}
	if w.Network == gateway.Address.Network && w.HasAddress(gateway.Address.IP) {
		return true
	}
	return slices.ContainsFunc(s.ServicesByVIP(gateway.Address.Network, gateway.Address.IP), func(service *Service) bool {
		return w.Backs(service.ServiceKey) != nil
	})
}

// throughWaypoint routes to a waypoint; what the client asked for travels as the tunnel's authority. A waypoint is
// always spoken to by tunnel, whatever protocol its workload is listed with.
func throughWaypoint(kind Kind, waypoint *hop, service *Service, dst netip.AddrPort) (Route, error) {
	return Route{
		Kind: kind, HBONE: true, Target: netip.AddrPortFrom(waypoint.ip, waypoint.port), Authority: dst.String(), Inner: dst,
		ExpectSANs: expectSANs(waypoint.workload, waypoint.sans), Service: service, Destination: waypoint.workload,
	}, nil
}

// expectSANs are the identities a next hop may have: its own and those its service lists.
func expectSANs(w *Workload, sans []string) []string {
	expect := append([]string{w.Identity().String()}, sans...)
	slices.Sort(expect)
	return slices.Compact(expect)
}
