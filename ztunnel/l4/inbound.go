package l4

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Inbound is a tunnel that arrived for a local workload.
type Inbound struct {
	Local *Workload
	// LocalIP is the address of the local workload that the peer's TCP connection came to.
	LocalIP netip.Addr
	// Authority of the CONNECT request: "ip:port", "[ip]:port" or "hostname:port".
	Authority string
	// ForwardedHost is the service the client says it addressed; empty if it said nothing. For telemetry only.
	ForwardedHost string
}

// InboundRoute is where an accepted tunnel ends.
type InboundRoute struct {
	// Target is the application's address in the pod.
	Target netip.AddrPort
	// Service that was addressed, as far as known.
	Service *Service
}

// Refusal is an answer other than 200, with the reason for the log.
type Refusal struct {
	Status int // 400 or 503
	Reason string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason }

func refuse(status int, format string, args ...any) (InboundRoute, error) {
	return InboundRoute{}, &Refusal{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// DecideInbound says where a tunnel ends in the local workload, or refuses it with a *Refusal. A peer may only ask for
// what the workload is: its own address, a host name it backs, or something it is the waypoint of.
func DecideInbound(s *State, in Inbound) (InboundRoute, error) {
	host, portText, err := net.SplitHostPort(in.Authority)
	if err != nil {
		return refuse(400, "authority %q is not host:port", in.Authority)
	}
	number, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || number == 0 || host == "" {
		return refuse(400, "authority %q is not host:port", in.Authority)
	}
	port := uint16(number)
	if in.Local.AppTunnel != nil {
		return refuse(503, "workload %s wants its tunnels by %v, which is not supported yet", in.Local.UID, in.Local.AppTunnel.Protocol)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return inboundIP(s, in, ip.Unmap(), port)
	}
	return inboundHostname(s, in, host, port)
}

// DecidePlaintext says where a redirected connection without a tunnel ends. Dst is its original destination.
func DecidePlaintext(dst netip.AddrPort) (InboundRoute, error) {
	if illegalPort(dst.Port()) {
		return refuse(503, "%s is where the proxy itself listens", dst)
	}
	return InboundRoute{Target: netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())}, nil
}

func inboundIP(s *State, in Inbound, ip netip.Addr, port uint16) (InboundRoute, error) {
	if ip != in.LocalIP.Unmap() && !waypointOfAddress(s, in.Local, ip) {
		return refuse(400, "authority %q is not this workload: the connection came to %s", in.Authority, in.LocalIP)
	}
	if illegalPort(port) {
		return refuse(503, "port %d is where the proxy itself listens", port)
	}
	return InboundRoute{Target: netip.AddrPortFrom(in.LocalIP.Unmap(), port), Service: addressedService(s, in)}, nil
}

func inboundHostname(s *State, in Inbound, host string, port uint16) (InboundRoute, error) {
	for _, service := range s.ServicesByHostname(host) {
		var target uint16
		switch {
		case in.Local.Backs(service.ServiceKey) != nil:
			mapped, ok := targetPort(service, in.Local, port)
			if !ok {
				continue
			}
			target = mapped
		case waypointOfService(s, in.Local, service):
			target = port
		default:
			continue
		}
		if illegalPort(target) {
			return refuse(503, "port %d is where the proxy itself listens", target)
		}
		return InboundRoute{Target: netip.AddrPortFrom(in.LocalIP.Unmap(), target), Service: service}, nil
	}
	return refuse(503, "authority %q is no service and port of this workload", in.Authority)
}

// addressedService believes the client about the service only if the workload backs it.
func addressedService(s *State, in Inbound) *Service {
	if in.ForwardedHost == "" {
		return nil
	}
	var candidates []*Service
	for _, service := range s.ServicesByHostname(in.ForwardedHost) {
		if in.Local.Backs(service.ServiceKey) != nil {
			candidates = append(candidates, service)
		}
	}
	return PreferredService(candidates, in.Local.Namespace)
}

// waypointOfAddress reports whether local is the waypoint of what answers at ip.
func waypointOfAddress(s *State, local *Workload, ip netip.Addr) bool {
	if w := s.WorkloadByIP(local.Network, ip); w != nil && w.Waypoint != nil && isInstance(s, *w.Waypoint, local) {
		return true
	}
	for _, service := range s.ServicesByVIP(local.Network, ip) {
		if waypointOfService(s, local, service) {
			return true
		}
	}
	return false
}

func waypointOfService(s *State, local *Workload, service *Service) bool {
	if service.Waypoint != nil && isInstance(s, *service.Waypoint, local) {
		return true
	}
	for _, weighted := range service.WeightedWaypoints {
		if isInstance(s, weighted.Gateway, local) {
			return true
		}
	}
	return false
}
