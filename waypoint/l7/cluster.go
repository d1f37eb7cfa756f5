package l7

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
)

// Discovery is where a cluster's hosts come from.
type Discovery uint8

// The kinds of discovery.
const (
	DiscoveryStatic Discovery = iota
	DiscoveryEDS
	DiscoveryOriginalDst // the destination of the connection
	DiscoveryStrictDNS   // every address of the names in Static
	DiscoveryLogicalDNS  // one address of the name in Static
)

// LBPolicy is how a host is chosen.
type LBPolicy uint8

// The policies.
const (
	LBRoundRobin LBPolicy = iota
	LBLeastRequest
	LBRandom
	LBRingHash
	LBMaglev
	LBClusterProvided
)

// UpstreamHTTP is which version requests are sent with.
type UpstreamHTTP uint8

// The choices.
const (
	UpstreamHTTP1 UpstreamHTTP = iota
	UpstreamHTTP2
	UpstreamSame // what the client used (use_downstream_protocol_config)
	UpstreamAuto // by ALPN
)

// Cluster is a compiled cluster.
type Cluster struct {
	Name       string
	StatName   string // alt_stat_name, or Name
	Discovery  Discovery
	EDSName    string     // of the ClusterLoadAssignment
	Static     *Endpoints // inline ones; for DNS the names
	LB         LB
	Connect    time.Duration // timeout
	Breakers   Breakers      // of the default priority
	Outlier    *Outlier      // nil is none
	HTTP       UpstreamHTTP
	HTTP1      HTTP1Options
	HTTP2      HTTP2Options
	Idle       time.Duration // of connections without a request; 0 is none
	MaxLife    time.Duration // of a connection; 0 is none
	MaxPerConn uint32        // requests per connection; 0 is any
	// KeepaliveIdle and so on are TCP's; 0 is none.
	KeepaliveIdle, KeepaliveInterval time.Duration
	KeepaliveProbes                  uint32
	// PortOverride of ORIGINAL_DST (15008 for connect_originate); 0 is none.
	PortOverride uint16
	// ByWaypoint of ORIGINAL_DST: an endpoint that names a waypoint is reached through that.
	ByWaypoint bool
	DNSRefresh time.Duration
	// Sockets are transport_socket_matches in their order; Socket is the one when none matches.
	Sockets []SocketMatch
	Socket  Socket
	// Services are filter_metadata["istio"].services: whose this cluster is.
	Services []Service
	Subset   string
	// AnyIdentity is whether endpoints may have any identity that the sockets take, instead of exactly their own.
	AnyIdentity bool
	// BackendTLSPolicy is namespace/name of the one that says how TLS is spoken to the endpoints, and Refused why there are none because of
	// it. Both are for people.
	BackendTLSPolicy, Refused string
	// LocalEndpoints is whether endpoints may be at addresses of the proxy's own host: loopback and the like.
	LocalEndpoints bool
	// CloseOnHealthFailure closes the connections of a host that becomes unhealthy.
	CloseOnHealthFailure bool
}

// HTTP1Options are of connections that speak HTTP/1. There are none that matter so far: those of Envoy are refused.
type HTTP1Options struct{}

// LB is the balancing of a cluster.
type LB struct {
	Policy LBPolicy
	// Choices of least request (2 by default).
	Choices uint32
	// MinRing and MaxRing are ring sizes; Table is Maglev's.
	MinRing, MaxRing, Table uint64
	// PanicThreshold in percent (50 by default); 0 never panics.
	PanicThreshold float64
	// LocalityWeighted is locality_weighted_lb_config.
	LocalityWeighted bool
	// SlowStart is the window; 0 is none.
	SlowStart           time.Duration
	SlowStartAggression float64
	SlowStartMin        float64
	// HashHostname is use_hostname_for_hashing.
	HashHostname bool
	// SessionHealth says for each [Health] whether a host that a session asks for is taken with it, where outlier detection has not
	// ejected it.
	SessionHealth [Draining + 1]bool
}

// Breakers are the limits of a cluster.
type Breakers struct {
	MaxConnections, MaxPending, MaxRequests, MaxRetries uint32
	MaxPools                                            uint32
	// BudgetPercent is the share of active requests that may be retries, at least MinRetries; BudgetPercent 0: MaxRetries counts.
	BudgetPercent   float64
	MinRetries      uint32
	TrackRemaining  bool
	PerHostMaxConns uint32 // 0 is any
}

// Outlier is outlier detection.
type Outlier struct {
	Consecutive5xx, ConsecutiveGateway, ConsecutiveLocal uint32 // 0 is off
	SplitLocal                                           bool
	Interval, BaseEjection, MaxEjection, Jitter          time.Duration
	MaxEjectionPercent                                   uint32
}

// Service is one that a cluster belongs to.
type Service struct{ Host, Name, Namespace string }

// SocketMatch chooses a socket by the endpoint's envoy.transport_socket_match metadata.
type SocketMatch struct {
	Name   string
	Match  map[string]string
	Socket Socket
}

// SocketKind is how bytes go to a host.
type SocketKind uint8

// The kinds.
const (
	SocketRaw      SocketKind = iota
	SocketInternal            // internal_upstream: through an internal listener
	SocketTLS
)

// Socket is a transport socket of a cluster.
type Socket struct {
	Kind SocketKind
	// Proxy is the version of the PROXY protocol by which the host is told of the client, before anything else; 0 is none.
	Proxy proxyproto.Version
	TLS   *ClientTLS // of SocketTLS; of SocketInternal what is spoken inside of the tunnel, nil for nothing
}

// ClientTLS is an UpstreamTlsContext.
type ClientTLS struct {
	SNI                     string
	ALPN                    []string
	Certificate, Validation string // SDS names; "" is none
	PeerSANs                []SANMatcher
	MinVersion, MaxVersion  uint16
	AutoSNI, AutoSANCheck   bool
	Insecure                bool         // no validation at all
	Trusted                 *Authorities // of the resource itself
	Revocation              Revocation
	CAFile                  string // instead of Validation
	CertFile, KeyFile       string // instead of Certificate
}

// SecretNames are the SDS resources that are not the proxy's own.
func (c *Cluster) SecretNames() []string {
	var names []string
	add := func(s Socket) {
		if s.TLS == nil {
			return
		}
		for _, name := range [...]string{s.TLS.Certificate, s.TLS.Validation} {
			if name != "" && name != OwnCertificate && name != OwnRoots && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	add(c.Socket)
	for i := range c.Sockets {
		add(c.Sockets[i].Socket)
	}
	return names
}

// SANMatcher is what a name in the certificate must be.
type SANMatcher struct {
	Kind    SANKind
	Matcher StringMatcher
}

// StringMatcher is a compiled matcher of strings.
type StringMatcher = match.String

// SANKind is the kind of a subject alternative name.
type SANKind uint8

// The kinds of names.
const (
	SANAny SANKind = iota
	SANURI
	SANDNS
	SANEmail
	SANIP
)

// TellsClients is whether some hosts are told of the client by the PROXY protocol: connections to them serve one client each.
func (c *Cluster) TellsClients() bool {
	return c.Socket.Proxy != 0 || slices.ContainsFunc(c.Sockets, func(m SocketMatch) bool { return m.Socket.Proxy != 0 })
}

// CompileCluster makes a cluster's table. The error names the field that cannot be honoured.
func CompileCluster(p *clusterv3.Cluster) (*Cluster, error) { return compileCluster(p) }
