package l7

import (
	"net/netip"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// Health of an endpoint as the control plane sees it.
type Health uint8

// The healths.
const (
	Healthy Health = iota // also unknown
	Degraded
	Unhealthy // also timeout
	Draining  // existing work may go on, new work goes elsewhere
)

// Locality is where an endpoint runs.
type Locality struct{ Region, Zone, SubZone string }

// Endpoint is a host of a cluster. It is immutable; two with equal [Endpoint.Key] are the same host.
type Endpoint struct {
	// Address is the socket; for an internal endpoint the target inside the tunnel ("POD:9080"), not valid when it is the
	// destination of the connection (encap). Host is set instead of a valid Address for DNS clusters.
	Address netip.AddrPort
	Host    string
	Port    uint16
	// Hostname is LbEndpoint's endpoint.hostname, for auto_host_rewrite.
	Hostname string
	// Internal is the internal listener through which the endpoint is reached ("connect_originate" is HBONE), ID its endpoint_id.
	Internal, ID string
	// Waypoint is where the tunnel to the endpoint ends when that is not at the endpoint; not valid otherwise.
	Waypoint netip.AddrPort
	// Identity is the SPIFFE URI that the host must prove (metadata isthmus.mesh.identity); "" is not known.
	Identity string
	Health   Health
	Weight   uint32 // at least 1
	Priority uint32
	Locality Locality
	// LocalityWeight is the weight of all endpoints of the locality together; 0 is none given.
	LocalityWeight uint32
	// SocketMatch is filter_metadata["envoy.transport_socket_match"].
	SocketMatch map[string]string
	// Workload is filter_metadata["istio"].workload: "name;namespace;canonical name;revision;cluster".
	Workload string
}

// Key identifies the host: its address, the way to it and who it must be.
func (e *Endpoint) Key() EndpointKey {
	return EndpointKey{Address: e.Address, Host: e.Host, Port: e.Port, Internal: e.Internal, ID: e.ID, Identity: e.Identity}
}

// EndpointKey is comparable.
type EndpointKey struct {
	Address                      netip.AddrPort
	Host, Internal, ID, Identity string
	Port                         uint16
}

// Endpoints is a compiled ClusterLoadAssignment.
type Endpoints struct {
	Cluster string
	List    []*Endpoint // in the order of the message
	// Overprovisioning factor in percent, 140 by default.
	Overprovisioning uint32
	// DropPercent is drop_overloads.
	Weighted bool // weighted_priority_health
}

// CompileEndpoints makes the table of a load assignment. The error names the field that cannot be honoured.
func CompileEndpoints(p *endpointv3.ClusterLoadAssignment) (*Endpoints, error) {
	return compileEndpoints(p)
}

// Tunnel is how an endpoint is reached through HBONE.
type Tunnel struct {
	// Address is where the TLS connection goes (POD:15008), Authority what the CONNECT asks for (POD:9080).
	Address   netip.AddrPort
	Authority string
	// Identity is exactly who the peer must be; when it is "" one of Peers must match its URI SAN.
	Identity string
	Peers    []SANMatcher
	// TLS names the certificates, HTTP2 the options of the outer connection.
	TLS   *ClientTLS
	HTTP2 HTTP2Options
	// Connect is the timeout of the outer connection.
	Cluster *Cluster
}

// Tunnel resolves an endpoint with Internal set: the hops of connect_originate, collapsed. conn is the downstream connection, for
// endpoints that are its destination.
func (c *Config) Tunnel(e *Endpoint, conn *Conn) (Tunnel, bool) {
	l := c.Listeners[e.Internal]
	if l == nil || l.Originate == nil {
		return Tunnel{}, false
	}
	cl := c.Clusters[l.Originate.Cluster]
	if cl == nil || cl.Socket.Kind != SocketTLS {
		return Tunnel{}, false
	}
	to := e.Address
	if !to.IsValid() {
		to = conn.Destination
	}
	if !to.IsValid() {
		return Tunnel{}, false
	}
	port := to.Port()
	if cl.PortOverride != 0 {
		port = cl.PortOverride
	}
	address := netip.AddrPortFrom(to.Addr(), port)
	if cl.ByWaypoint && e.Waypoint.IsValid() {
		address = e.Waypoint
	}
	identity := e.Identity
	if cl.AnyIdentity {
		identity = ""
	}
	return Tunnel{
		Address: address, Authority: to.String(), Identity: identity,
		Peers: cl.Socket.TLS.PeerSANs, TLS: cl.Socket.TLS, HTTP2: cl.HTTP2, Cluster: cl,
	}, true
}

// SocketFor returns the transport socket that the cluster uses toward the endpoint.
func (cl *Cluster) SocketFor(e *Endpoint) Socket {
next:
	for i := range cl.Sockets {
		for k, v := range cl.Sockets[i].Match {
			if e.SocketMatch[k] != v {
				continue next
			}
		}
		return cl.Sockets[i].Socket
	}
	return cl.Socket
}
