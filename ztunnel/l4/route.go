package l4

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Kind says by which way a connection travels.
type Kind int

// The ways.
const (
	// Passthrough is plain TCP to the address the client asked for, which the mesh does not know.
	Passthrough Kind = iota
	// Direct is straight to a workload, tunnelled or plain as it speaks.
	Direct
	// ServiceWaypoint is through the waypoint of the service that was addressed.
	ServiceWaypoint
	// WorkloadWaypoint is through the waypoint of the workload that was addressed.
	WorkloadWaypoint
)

// String names the way as tests and explanations print it.
func (k Kind) String() string {
	return [...]string{"passthrough", "direct", "service-waypoint", "workload-waypoint"}[k]
}

// Route is where a connection goes. It holds no resources; acting on it is somebody else's work.
type Route struct {
	Kind Kind
	// HBONE: tunnel through mutual TLS; else plain TCP.
	HBONE bool
	// Target is what TCP connects to. Its address is invalid when Hostname has to be resolved first.
	Target netip.AddrPort
	// Authority is the tunnel's inner destination; empty without HBONE, or while Hostname is unresolved.
	Authority string
	// Inner is the destination behind a direct route: the workload's address and the target port.
	Inner netip.AddrPort
	// ExpectSANs are the SPIFFE URIs the next hop may present, sorted; only with HBONE.
	ExpectSANs []string
	// Service that was addressed, nil for an address that is no service's.
	Service *Service
	// Destination is the workload at the next hop: the endpoint, or the waypoint. Nil for unknown addresses.
	Destination *Workload
	// Hostname of an endpoint without an address, to be resolved before dialling.
	Hostname string
}

// Conn is an outbound connection of a local workload.
type Conn struct {
	// SourceWorkload is the local workload that connects.
	SourceWorkload *Workload
	// Source is the client's address and port, Dst the destination it asked for.
	Source, Dst netip.AddrPort
	// Rand returns a random number in [0, n); n is positive. It spreads load.
	Rand func(n uint64) uint64
	// Avoid are uids of endpoints that were tried in vain: they are chosen only when there is no other.
	Avoid []string
}

// The reasons for which Decide refuses, to be matched with errors.Is.
var (
	ErrNoHealthyUpstream = errors.New("no healthy upstream")
	ErrUnknownWaypoint   = errors.New("unknown waypoint")
	ErrLoop              = errors.New("connection to the proxy's own port")
	ErrCrossNetwork      = errors.New("cross-network not supported yet")
	// ErrWaypointAway is an ErrNoHealthyUpstream of a waypoint, which its next instance may mend.
	ErrWaypointAway = errors.New("no healthy waypoint")
)

// away is an error that is ErrWaypointAway without saying so.
type away struct{ error }

func (a away) Unwrap() error        { return a.error }
func (a away) Is(target error) bool { return target == ErrWaypointAway }

// illegalPort reports whether a port is the proxy's own: connections to it would loop.
func illegalPort(port uint16) bool { return port == 15001 || port == 15006 || port == HBONEPort }

// Decide says where an outbound connection goes, or why it must not go anywhere. An error is final: a mesh destination
// that cannot be reached as it should be is never reached in another way.
func Decide(s *State, c Conn) (Route, error) {
	dst := netip.AddrPortFrom(c.Dst.Addr().Unmap(), c.Dst.Port())
	own := c.SourceWorkload
	if illegalPort(dst.Port()) && (dst.Addr().IsLoopback() || dst.Addr() == c.Source.Addr().Unmap() || own.HasAddress(dst.Addr())) {
		return Route{}, fmt.Errorf("%w: %s is where the proxy itself listens", ErrLoop, dst)
	}
	if service := s.ServiceByVIP(own.Network, dst.Addr(), own.Namespace); service != nil {
		return decideService(s, c, service, dst)
	}
	if w := s.WorkloadByIP(own.Network, dst.Addr()); w != nil {
		return decideWorkload(s, c, w, dst)
	}
	return Route{Kind: Passthrough, Target: dst}, nil
}

// decideService routes a connection to a service's virtual address.
func decideService(s *State, c Conn, service *Service, dst netip.AddrPort) (Route, error) {
	waypoint, err := serviceWaypoint(s, c, service)
	if err != nil {
		return Route{}, err
	}
	if waypoint != nil {
		return throughWaypoint(ServiceWaypoint, waypoint, service, dst)
	}
	if service.Mode == passthroughMode {
		return decideOriginal(s, c, service, dst)
	}
	chosen, err := balance(s, c, service, dst.Port())
	if errors.Is(err, errUnknownPort) {
		// The service has nothing on this port; whoever owns the address may.
		return Route{Kind: Passthrough, Target: dst, Service: service}, nil
	}
	if err != nil {
		return Route{}, err
	}
	return direct(c, service, chosen, service.SubjectAltNames)
}

// decideOriginal keeps the address the client chose: a service without load balancing.
func decideOriginal(s *State, c Conn, service *Service, dst netip.AddrPort) (Route, error) {
	if w := s.WorkloadByIP(c.SourceWorkload.Network, dst.Addr()); w != nil {
		return direct(c, service, endpoint{workload: w, ip: dst.Addr(), port: dst.Port()}, service.SubjectAltNames)
	}
	return Route{Kind: Passthrough, Target: dst, Service: service}, nil
}

// decideWorkload routes a connection to a workload's own address.
func decideWorkload(s *State, c Conn, w *Workload, dst netip.AddrPort) (Route, error) {
	if w.Waypoint != nil {
		waypoint, err := resolveWaypoint(s, c, *w.Waypoint)
		if err != nil {
			return Route{}, fmt.Errorf("workload %s: %w", w.UID, err)
		}
		if waypoint != nil {
			return throughWaypoint(WorkloadWaypoint, waypoint, nil, dst)
		}
	}
	return direct(c, nil, endpoint{workload: w, ip: dst.Addr(), port: dst.Port()}, nil)
}

// endpoint is a workload picked to receive a connection.
type endpoint struct {
	workload *Workload
	ip       netip.Addr // invalid when only the host name is known
	port     uint16
}

// direct routes straight to an endpoint. Sans are accepted beside the endpoint's own identity.
func direct(c Conn, service *Service, e endpoint, sans []string) (Route, error) {
	w := e.workload
	if w.NetworkGateway != nil && w.Network != c.SourceWorkload.Network {
		return Route{}, fmt.Errorf("%w: %s is in network %q behind %s, the source in %q",
			ErrCrossNetwork, w.UID, w.Network, w.NetworkGateway, c.SourceWorkload.Network)
	}
	route := Route{Kind: Direct, Service: service, Destination: w}
	switch {
	case e.ip.IsValid():
		route.Inner = netip.AddrPortFrom(e.ip, e.port)
	case w.Hostname != "":
		route.Hostname, route.Inner = w.Hostname, netip.AddrPortFrom(netip.Addr{}, e.port)
	default:
		return Route{}, fmt.Errorf("%w: workload %s has no address", ErrNoHealthyUpstream, w.UID)
	}
	route.Target = route.Inner
	// A pod that reaches itself does not leave the pod, so there is nobody to tunnel to.
	if !w.HBONE || w.UID == c.SourceWorkload.UID {
		return route, nil
	}
	route.HBONE = true
	route.ExpectSANs = expectSANs(w, sans)
	return route.at(e.ip), nil
}

// at completes a direct HBONE route with the endpoint's address.
func (r Route) at(ip netip.Addr) Route {
	r.Inner = netip.AddrPortFrom(ip, r.Inner.Port())
	r.Target = r.Inner
	if r.HBONE {
		r.Target = netip.AddrPortFrom(ip, HBONEPort)
	}
	if r.HBONE && ip.IsValid() {
		r.Authority = r.Inner.String()
	}
	return r
}

// Resolved completes a route whose Hostname was resolved.
func (r Route) Resolved(ip netip.Addr) Route { return r.at(ip.Unmap()) }

// NextHop is the identity of the workload at the next hop of an HBONE route, zero otherwise.
func (r Route) NextHop() spiffe.ID {
	if !r.HBONE || r.Destination == nil {
		return spiffe.ID{}
	}
	return r.Destination.Identity()
}
