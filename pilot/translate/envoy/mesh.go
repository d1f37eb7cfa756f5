package envoy

import (
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	meshapi "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
)

// Mesh is what applies to every proxy.
type Mesh struct {
	ambient.Mesh
	// Config is the mesh configuration; nil is the default one.
	Config *meshapi.MeshConfig
	// Telemetry is what the filter chains tell; nil is what the configuration says.
	Telemetry *policy.Telemetry
	// HTTP10 has clients of HTTP/1.0 answered.
	HTTP10 bool
	// Origins has filter chains for connections say which object they come from: see OriginOf.
	Origins bool
}

// metadataHTTP10 is Istio's way to say so for all proxies of a mesh, in proxyMetadata.
const metadataHTTP10 = "ISTIO_META_HTTP10"

func (m Mesh) acceptsHTTP10() bool { return m.HTTP10 || m.options()[metadataHTTP10] == "1" }

func (m Mesh) trustDomains() []string {
	out := []string{m.TrustDomain}
	for _, alias := range m.TrustDomainAliases {
		if !slices.Contains(out, alias) {
			out = append(out, alias)
		}
	}
	return out
}

func (m Mesh) accessLogs() []*accesslogv3.AccessLog {
	if m.Telemetry != nil {
		return m.Telemetry.AccessLogs
	}
	return policy.AccessLogs(m.Config)
}

// trace makes requests of a chain part of traces.
func (m Mesh) trace(h *hcmv3.HttpConnectionManager) {
	if m.Telemetry != nil {
		h.Tracing, h.RequestIdExtension = m.Telemetry.Tracing, m.Telemetry.RequestID
	}
}

// telling puts what is said of metrics into the chains; Envoy ignores it.
func (m Mesh) telling(chains []*listenerv3.FilterChain) []*listenerv3.FilterChain {
	if m.Telemetry == nil || m.Telemetry.Metrics == nil {
		return chains
	}
	for _, c := range chains {
		c.Metadata = wrap(m.Telemetry.Metrics)
	}
	return chains
}

func (m Mesh) normalizePath(h *hcmv3.HttpConnectionManager) { policy.NormalizePath(m.Config, h) }

// autoMutualTLS is whether sidecars are reached by mutual TLS where no rule says anything.
func (m Mesh) autoMutualTLS() bool {
	auto := m.Config.GetEnableAutoMtls()
	return auto == nil || auto.GetValue()
}

// connectTimeout is 10 s unless the mesh says otherwise.
func (m Mesh) connectTimeout() time.Duration {
	if d := m.Config.GetConnectTimeout(); d != nil && d.AsDuration() > 0 {
		return d.AsDuration()
	}
	return 10 * time.Second
}

// detectionTimeout is how long the first bytes of a connection of unknown protocol are waited for; 0 is forever.
func (m Mesh) detectionTimeout() time.Duration {
	return m.Config.GetProtocolDetectionTimeout().AsDuration()
}
