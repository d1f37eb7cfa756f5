// Package app assembles the control plane: source, registry, xDS, certificate authority and debug endpoints.
package app

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pilot/internal/jwks"
	"github.com/isthmus-mesh/isthmus/pilot/internal/leader"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Config of the control plane. Default returns the documented defaults; Log must be set.
type Config struct {
	// HTTPAddr serves /ready and debug.
	HTTPAddr string
	// GRPCAddr serves xDS in plaintext; no callers are authenticated there.
	GRPCAddr string
	// SecureGRPCAddr serves xDS and certificates over TLS.
	SecureGRPCAddr string
	// MonitoringAddr serves /metrics, /version and debug.
	MonitoringAddr string
	// ControlAddr serves the log levels, Levels, to this machine only; empty is nowhere.
	ControlAddr string
	Levels      *telemetry.Levels

	// HTTPSAddr serves the webhooks of the API server; nothing listens there without one.
	HTTPSAddr string

	// Kubernetes is how to reach the API server whose objects are served; nil for those of ConfigDir.
	Kubernetes *rest.Config
	// ConfigDir is the directory of manifests to serve.
	ConfigDir string
	// StatusDir is where a file per object says what became of it; empty means nowhere but /debug/statusz.
	StatusDir string
	// MeshConfigFile is followed for changes; empty means the ConfigMap of the revision, or defaults where there is no API server.
	MeshConfigFile string
	// SharedMeshConfig is the name of a ConfigMap that the mesh configuration is put over; empty is none.
	SharedMeshConfig string
	// Domain is the suffix of Kubernetes Services' names.
	Domain string
	// ClusterID is the name of the cluster: the first segment of workload uids.
	ClusterID string
	// Network of the cluster, unless the system namespace is labelled with another one.
	Network string
	// Namespace in which the control plane runs.
	Namespace string
	// Revision of this control plane.
	Revision string
	// PodName is how this instance calls itself.
	PodName string
	// MaxConnectionAge after which xDS clients are told to connect anew.
	MaxConnectionAge time.Duration

	// Controllers are what is done in the cluster besides serving.
	Controllers Controllers
	// OfflineTokens has tokens of known pods verified by the API server's keys while it does not answer; else nobody is let in then.
	OfflineTokens bool
	// CNINamespace is where the CNI agent is; empty means the control plane's.
	CNINamespace string
	// LeaderTiming is leader.DefaultTiming when empty.
	LeaderTiming leader.Timing

	// CADir holds the certificate authority's key material: ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem as a plugged-in
	// authority has them, or the self-signed one that is written there. Without it they are in Secrets, or in memory only where there
	// is no API server.
	CADir string
	// RootCertTTL is the lifetime of a self-signed root, RootCertGrace the share of it before its end, in percent, in which it is
	// replaced; RootCertCheck is how often that is looked at.
	RootCertTTL, RootCertCheck time.Duration
	RootCertGrace              int
	// JWKSFile has the keys that ServiceAccount tokens are signed with; JWTIssuer is who must have issued them. An API server is asked
	// about tokens instead.
	JWKSFile, JWTIssuer string
	// TrustedGateways are the networks of proxies that are believed about their clients' certificates (x-forwarded-client-cert).
	TrustedGateways []netip.Prefix
	// TokenAudiences that are accepted in tokens.
	TokenAudiences []string
	// TrustedNodeAccounts (namespace/name) may ask for the certificates of workloads on their own node.
	TrustedNodeAccounts []string
	// DefaultCertTTL is the lifetime of certificates unless the request says another, MaxCertTTL the longest.
	DefaultCertTTL, MaxCertTTL time.Duration
	// TLSCertFile and TLSKeyFile replace the certificate that the control plane issues to itself; CACertFile is what client
	// certificates are then verified with, besides the authority's roots. They are read again for each handshake.
	TLSCertFile, TLSKeyFile, CACertFile string
	// ServerNames are further DNS names of the control plane's own certificate.
	ServerNames []string
	// DryRunPolicies has ztunnel told of AuthorizationPolicies of a dry run.
	DryRunPolicies bool
	// HTTP10 has waypoints and gateways answer clients of HTTP/1.0.
	HTTP10 bool
	// BlockedKeySources are networks that key sets of token issuers are never fetched from.
	BlockedKeySources []netip.Prefix
	// Profile serves profiles among the debug endpoints.
	Profile bool
	// RootCertOut is a file that the root certificates are written to.
	RootCertOut string

	Build telemetry.Build
	Log   *slog.Logger
	// Started, if set, is called once all ports are open.
	Started func(Addresses)
}

// Addresses that are being listened on. HTTPS is nil without an API server.
type Addresses struct{ HTTP, HTTPS, GRPC, SecureGRPC, Monitoring net.Addr }

// Controllers are what a control plane does in its cluster besides serving.
type Controllers struct {
	// RootCerts writes the root certificates into all namespaces, CRL the list of revoked certificates.
	RootCerts, CRL bool
	// TrustBundle has the root certificates in a ClusterTrustBundle instead of ConfigMaps in all namespaces.
	TrustBundle bool
	// Deploy runs gateways and waypoints.
	Deploy bool
	// Webhooks has the API server trust the validation webhook.
	Webhooks bool
	// Status writes what became of objects into them.
	Status bool
	// IPAllocate gives addresses to ServiceEntries.
	IPAllocate bool
	// Untaint opens nodes once the CNI agent is ready.
	Untaint bool
}

// Default is the configuration with nothing set by the user.
func Default() Config {
	return Config{
		HTTPAddr:            ":8080",
		GRPCAddr:            ":15010",
		SecureGRPCAddr:      ":15012",
		MonitoringAddr:      ":15014",
		HTTPSAddr:           ":15017",
		OfflineTokens:       true,
		Controllers:         Controllers{RootCerts: true, Deploy: true, Webhooks: true, Status: true, IPAllocate: true},
		RootCertCheck:       time.Hour,
		Domain:              "cluster.local",
		ClusterID:           "Kubernetes",
		Namespace:           "istio-system",
		Revision:            "default",
		PodName:             "istiod",
		Profile:             true,
		MaxConnectionAge:    30 * time.Minute,
		TokenAudiences:      []string{"istio-ca"},
		TrustedNodeAccounts: []string{"istio-system/ztunnel"},
		DefaultCertTTL:      24 * time.Hour,
		MaxCertTTL:          90 * 24 * time.Hour,
		JWTIssuer:           "https://kubernetes.default.svc.cluster.local",
		BlockedKeySources:   jwks.Blocked(),
		Build:               telemetry.NewBuild("", ""),
	}
}

func (c Config) validate() error {
	switch {
	case c.Log == nil:
		return errors.New("start the control plane: no logger")
	case c.ConfigDir == "" && c.Kubernetes == nil:
		return errors.New("start the control plane: there is no source of configuration: an API server or, with --configDir, a directory of manifests")
	case c.ConfigDir != "" && c.Kubernetes != nil:
		return errors.New("start the control plane: an API server and a directory of manifests exclude each other")
	case (c.TLSCertFile == "") != (c.TLSKeyFile == ""):
		return errors.New("start the control plane: --tlsCertFile and --tlsKeyFile go together")
	case c.ClusterID == "":
		return errors.New("start the control plane: the cluster needs a name: set --clusterID")
	}
	return nil
}
