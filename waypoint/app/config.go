// Package app runs the L7 proxy: it puts the discovery client, certificates, the engine and the admin endpoints together, and
// takes them apart in order. With [Config.Envoy] set it does the same around a real Envoy.
package app

import (
	"log/slog"
	"net"
	"net/netip"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Kind is what the proxy serves as; it is the first part of its node ID.
type Kind string

// The kinds.
const (
	Waypoint Kind = "waypoint"
	Router   Kind = "router"
)

// Config of one proxy. Every field is set by internal/config from flags, environment and files; nothing else reads them.
type Config struct {
	Kind Kind
	// ServiceCluster is the name of the group of proxies, "waypoint.default"; by default it is made of labels.
	ServiceCluster string
	// Domain is the last part of the node ID: "NAMESPACE.svc.cluster.local".
	Domain string
	// The proxy's place.
	PodName, PodNamespace, ServiceAccount, NodeName string
	ClusterID, TrustDomain                          string
	InstanceIPs                                     []netip.Addr
	// Labels of the pod, by which the control plane knows the Gateway that the proxy is for.
	Labels map[string]string
	// Metadata is sent to the control plane with the node: ISTIO_META_X as X.
	Metadata map[string]any
	// ProxyConfig is PROXY_CONFIG with Istio's defaults filled in.
	ProxyConfig *meshconfig.ProxyConfig

	XDS, CA Upstream
	// TokenFile holds the bearer token for both; it is read again for each call.
	TokenFile string
	SecretTTL time.Duration

	// Drain says how the proxy ends.
	Drain Drain

	// AdminAddr is for this host only: whoever reaches it may end the proxy. MetricsAddr serves the merged metrics, ReadinessAddr
	// the probe, EngineMetricsAddr the engine's own metrics.
	AdminAddr, MetricsAddr, ReadinessAddr, EngineMetricsAddr string

	LogJSON bool
	// LogLevel is the whole specification, Level its base.
	LogLevel string
	Level    slog.Level
	// Threads bounds the operating system threads that run Go code; 0 leaves it to the runtime.
	Threads int

	// Envoy, if set, is the engine instead of ours.
	Envoy *Envoy

	// Warnings are settings that were understood and have no effect here, one line each.
	Warnings []string
	// Environment is that of the process, for tags of spans that show it.
	Environment map[string]string `json:"-"`

	Build telemetry.Build
	// Log and Levels are made by the command; Levels can be changed through the admin port.
	Log    *slog.Logger      `json:"-"`
	Levels *telemetry.Levels `json:"-"`
	// Started, if set, is called once the proxy's own ports are open.
	Started func(Addresses) `json:"-"`
}

// Drain is what happens between SIGTERM and the end.
type Drain struct {
	// Termination is how long new connections are still accepted while clients are told to go elsewhere.
	Termination time.Duration
	// Grace is when the process is killed after SIGTERM; 0 is not known. Open requests may go on until shortly before.
	Grace time.Duration
	// ExitOnZero ends as soon as no connection is left, but not before Minimum.
	ExitOnZero bool
	Minimum    time.Duration
	// Listener is how long connections of a listener or chain that the control plane took away may go on.
	Listener time.Duration
}

// Envoy says how the real Envoy is run.
type Envoy struct {
	// Binary is its path.
	Binary string
	// Dir is where its bootstrap and sockets are put.
	Dir                         string
	LogLevel, ComponentLogLevel string
	Concurrency                 int
}

// Addresses that the proxy itself listens on.
type Addresses struct{ Admin, Metrics, Readiness, EngineMetrics net.Addr }

// Upstream is a gRPC service of the control plane.
type Upstream struct {
	// URL is https://host:port, or http://host:port without TLS.
	URL string
	// RootCertFile verifies the server.
	RootCertFile string
	// Headers are added to each call.
	Headers map[string]string
}
