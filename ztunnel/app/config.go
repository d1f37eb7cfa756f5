// Package app runs the node proxy: it puts the discovery client, certificates, the pods of the node and the admin
// endpoints together, and takes them apart in order.
package app

import (
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Config of one node proxy. Every field is set by internal/config from the environment; nothing else reads it.
type Config struct {
	// Enabled false serves admin endpoints and DNS only (ENABLE_PROXY).
	Enabled bool
	// The proxy's place.
	NodeName, ClusterID, ClusterDomain, Network, TrustDomain string
	PodName, PodNamespace, ServiceAccount                    string
	InstanceIP                                               netip.Addr
	// Metadata is sent to the control plane with the node: ISTIO_META_X as X.
	Metadata map[string]any

	XDS, CA Upstream
	// TokenFile holds the bearer token for both; it is read again for each call.
	TokenFile string
	// OnDemand subscribes only to what connections ask for.
	OnDemand  bool
	SecretTTL time.Duration
	// CRLFile has the revocation lists; it is read again when it changes. Empty: nothing is ever revoked.
	CRLFile string

	// ZDSSocket is where the CNI agent hands over pods.
	ZDSSocket  string
	PacketMark uint32
	IPv6       bool
	// RequireTransparent fails a pod whose listeners cannot keep source addresses.
	RequireTransparent bool
	KeepaliveEnabled   bool
	KeepaliveTime      time.Duration
	KeepaliveInterval  time.Duration
	KeepaliveRetries   int

	DNSProxy                  bool
	PreferredServiceNamespace string

	PoolMaxStreams  int
	PoolIdleTimeout time.Duration
	// PoolBusyConns is up to how many tunnel connections to one peer are opened under load; 0 is by the number of processors.
	PoolBusyConns int
	// MemoryBudget is how many bytes connections and their buffers may take; 0 is by what the process may use.
	MemoryBudget int64
	// MaxConnections of one workload; 0 is its share of the node's.
	MaxConnections  int
	ResponseBaggage bool
	LogDecisions    bool
	// SleepAfter is for how long a tunnelled connection is quiet before it has no goroutine; 0 is [netx.SleepAfter].
	SleepAfter time.Duration
	// Transport makes the TLS records of tunnels.
	Transport hbone.Transport

	// Handover moves open connections to the instance that takes this one's place, and takes those of the one before.
	Handover bool
	// HandoverVersions are the least and the newest form of a hand-over that are understood; zero is what this build does.
	HandoverVersions [2]uint64
	// DrainTimeout is how long open connections may go on after SIGTERM.
	DrainTimeout time.Duration
	// CertificatePatience is how long a pod that is there when this proxy starts is left to whoever serves it, for want of its
	// certificate; three times that for all pods. It is less than the agent waits for an answer, 5 s.
	CertificatePatience time.Duration

	AdminAddr, MetricsAddr, ReadinessAddr string
	LogJSON                               bool
	LogLevel                              string
	// Level is LogLevel's base.
	Level slog.Level
	// Threads bounds the operating system threads that move bulk; one more runs what is light. 0 leaves it to the runtime.
	Threads int

	Build telemetry.Build
	// Log and Levels are made by the command; Levels can be changed through the admin port.
	Log    *slog.Logger      `json:"-"`
	Levels *telemetry.Levels `json:"-"`
	// Started, if set, is called once the proxy's own ports are open.
	Started func(Addresses) `json:"-"`
}

// Addresses that the proxy itself listens on.
type Addresses struct{ Admin, Metrics, Readiness net.Addr }

// Upstream is a gRPC service of the control plane.
type Upstream struct {
	// URL is https://host:port, or http://host:port without TLS.
	URL string
	// RootCertFile verifies the server.
	RootCertFile string
	// AltHostname is a second name the server's certificate may bear.
	AltHostname string
	// Headers are added to each call.
	Headers map[string]string
}
