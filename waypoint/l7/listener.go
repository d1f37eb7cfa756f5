package l7

import (
	"net/netip"
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/rbac"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

// Listener is a compiled listener.
type Listener struct {
	Name string
	// Internal listeners have no socket; Addresses are those of the others.
	Internal  bool
	Addresses []ListenAddress
	// InspectTLS and InspectHTTP are the listener filters present: what may be read before a chain is chosen. Whether a connection
	// is to be looked at is for NeedsSNI and Config.NeedsSniff to say.
	InspectTLS, InspectHTTP bool
	// ProxyProtocol is whether every connection begins with a header of the PROXY protocol, before anything else.
	ProxyProtocol bool
	// FilterTimeout is how long they may wait for the first bytes (0 is for ever); then the connection is closed, or goes on as if
	// nothing had been found.
	FilterTimeout     time.Duration
	ContinueOnTimeout bool
	// Unfold is whether HTTP/1.1 header fields of several lines are taken, AnyPath whether paths of HTTP/2 may be none of a URI: what
	// Envoy takes, and we refuse where the listener's metadata says nothing.
	Unfold, AnyPath bool
	// Originate is set for the listener that carries connections into HBONE tunnels.
	Originate *Originate
	// AccessLogs of connections for which no chain was found.
	AccessLogs []*accesslogv3.AccessLog
	Chains     []*Chain
	Default    *Chain

	match           chainMatch
	httpOff, tlsOff connPredicate
}

// ListenAddress is a socket to listen on.
type ListenAddress struct {
	netip.AddrPort
	// Dual is whether an IPv6 socket takes IPv4 too.
	Dual bool
}

// Chain is a compiled filter chain: exactly one of HTTP, TCP and Terminate is set.
type Chain struct {
	Name string
	// TLS is set when the chain ends TLS.
	TLS *ServerTLS
	// HTTP is a chain whose connections carry requests.
	HTTP *HTTPManager
	// TCP is a chain that forwards bytes.
	TCP *TCPProxy
	// Terminate is a chain that ends HBONE.
	Terminate *Terminate
	// Told is what the metadata says for us about telemetry; nil is nothing.
	Told *structpb.Struct
	// rbac are the network filters before the last one.
	rbac []*rbac.Filter
	// external are those among them that ask an authorizer; of TCP chains only.
	external []*extauthz.Filter
}

// Terminate says that connections are HBONE: each CONNECT goes on at the internal listener of the cluster.
type Terminate struct {
	Cluster string
	// HTTP has the options of the HTTP/2 connection and the access logs of CONNECTs.
	HTTP *HTTPManager
}

// Originate says that connections to an internal listener are sent as a CONNECT to hosts of a cluster.
type Originate struct {
	Cluster    string
	StatPrefix string
}

// ServerTLS is a DownstreamTlsContext.
type ServerTLS struct {
	// Certificates are names of SDS resources, Files those of files with a certificate and its key: the one that suits a client is
	// presented.
	Certificates []string
	Files        []CertificateFiles
	// Validation is the name of an SDS resource with the authorities of clients' certificates, CAFile is a file with them; Trusted is
	// what was in the resource itself. Validates is whether there is any of it: otherwise clients are not asked for certificates.
	Validation, CAFile string
	Trusted            *Authorities
	Revocation         Revocation
	Validates          bool
	RequireClient      bool
	ALPN               []string
	// MinVersion and MaxVersion are as in crypto/tls; 0 is the default.
	MinVersion, MaxVersion uint16
	// CipherSuites of TLS 1.2 and before; empty is the default.
	CipherSuites []uint16
	// PeerSANs are what a name of the peer must match, one of them; empty is any that the roots vouch for.
	PeerSANs []SANMatcher
	// Pinned are hashes (SHA-256) of which the peer's certificate, or its public key, must have one; empty is any.
	PinnedCertificates, PinnedKeys [][32]byte
}

// CertificateFiles are the names of two files in PEM.
type CertificateFiles struct{ Certificate, Key string }

// SecretNames are the SDS resources that are not the proxy's own.
func (t *ServerTLS) SecretNames() []string {
	if t == nil {
		return nil
	}
	var names []string
	for _, name := range append(slices.Clone(t.Certificates), t.Validation) {
		if name != "" && name != OwnCertificate && name != OwnRoots && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Codec is which HTTP version a manager expects.
type Codec uint8

// The codecs.
const (
	CodecAuto Codec = iota
	CodecHTTP1
	CodecHTTP2
)

// HTTPManager is a compiled HttpConnectionManager.
type HTTPManager struct {
	StatPrefix string
	Codec      Codec
	// RouteConfig is the name of the RouteConfiguration by RDS; Inline is set when it was in the listener instead.
	RouteConfig string
	Inline      *Routes
	ServerName  string
	AccessLogs  []*accesslogv3.AccessLog
	// Tracing is nil where nothing is traced.
	Tracing *tracing.Config

	// Of the downstream connection; 0 is none.
	IdleTimeout, StreamIdleTimeout, RequestTimeout, RequestHeadersTimeout time.Duration
	MaxConnectionDuration, MaxStreamDuration, DrainTimeout                time.Duration
	DelayedCloseTimeout                                                   time.Duration
	MaxRequestsPerConnection                                              uint32
	MaxHeaderBytes, MaxHeaders                                            int
	HTTP2                                                                 HTTP2Options
	AcceptHTTP10                                                          bool
	// Upgrades that are allowed where a route says nothing else: "websocket", "connect", in lower case.
	Upgrades map[string]bool

	opts    managerOptions
	filters []filter
}

// HTTP2Options are of a connection, on either side; 0 is the default.
type HTTP2Options struct {
	MaxStreams, StreamWindow, ConnWindow uint32
	KeepaliveInterval, KeepaliveTimeout  time.Duration
	AllowConnect                         bool
}

// TCPProxy is a compiled tcp_proxy.
type TCPProxy struct {
	StatPrefix         string
	Cluster            string            // when there is one
	Weighted           []WeightedCluster // when there are several
	IdleTimeout        time.Duration     // 0 is none
	MaxDuration        time.Duration     // of a connection; 0 is none
	MaxConnectAttempts uint32
	AccessLogs         []*accesslogv3.AccessLog
	HashSourceIP       bool
	totalWeight        uint64
}

// WeightedCluster is one destination among several.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
}

// CompileListener makes a listener's table. The error names the field that cannot be honoured.
func CompileListener(p *listenerv3.Listener) (*Listener, error) { return compileListener(p) }

// NeedsSniff is whether the chain of the connection depends on what its first bytes are.
func (c *Config) NeedsSniff(listener string, conn *Conn) bool {
	l := c.Listeners[listener]
	return l != nil && l.InspectHTTP && !l.httpOff.holds(conn) && l.match.dependsOnProtocol(conn)
}

// NeedsSNI is whether the listener looks for a TLS ClientHello at the start of the connection.
func (l *Listener) NeedsSNI(conn *Conn) bool { return l.InspectTLS && !l.tlsOff.holds(conn) }

// Chain chooses the filter chain of a connection. Without one the connection is closed (response flag NR).
func (c *Config) Chain(listener string, conn *Conn, sniffed Protocol) (*Chain, bool) {
	l := c.Listeners[listener]
	if l == nil {
		return nil, false
	}
	ch := l.match.find(conn, sniffed)
	if ch == nil {
		ch = l.Default
	}
	return ch, ch != nil
}
