package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

// Keys of our metadata of a cluster: the BackendTLSPolicy that it follows, and why there are no connections.
const (
	BackendTLSPolicyMetadata = "backend_tls_policy"
	RefusedMetadata          = "refused"
)

// backendTLS is the TLS that a BackendTLSPolicy asks for. Where the port does not say which HTTP it has, none is offered by name: then
// proxies offer the one that they are about to speak.
func (c Cluster) backendTLS() *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2}}
	switch c.Protocol {
	case HTTP:
		common.AlpnProtocols = []string{"http/1.1"}
	case HTTP2:
		common.AlpnProtocols = []string{"h2"}
	case Unknown, TCP, TLS:
	}
	validation := &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: subjectNames(c.BackendTLS.Names)}
	if c.BackendTLS.Authority == "" {
		validation.TrustedCa = file(systemRoots)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}
	} else {
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: validation, ValidationContextSdsSecretConfig: controlPlaneSecret(c.BackendTLS.Authority),
			},
		}
	}
	return transportSocket(tlsSocket, &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: c.BackendTLS.ServerName})
}

func subjectNames(names []gateway.SubjectName) []*tlsv3.SubjectAltNameMatcher {
	var out []*tlsv3.SubjectAltNameMatcher
	for _, name := range names {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if name.URI {
			kind = tlsv3.SubjectAltNameMatcher_URI
		}
		out = append(out, &tlsv3.SubjectAltNameMatcher{
			SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name.Name}},
		})
	}
	return out
}

// refused is the cluster of a backend that nobody can vouch for: it has no endpoints, so that what goes there is answered by 503, and
// never sent in plain text.
func (c Cluster) refused() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 c.Name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(c.Mesh.connectTimeout()),
		LoadAssignment:       &endpointv3.ClusterLoadAssignment{ClusterName: c.Name},
		Metadata:             c.metadata(),
	}
}
