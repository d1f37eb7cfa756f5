package envoy

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

// controlPlaneSecret is a secret that the control plane itself has. Unlike those of the agent it may be missing: a listener waits for
// it only so long as Envoy does by default.
func controlPlaneSecret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}}
}

// serverTLS ends the TLS of a gateway's clients.
func (g Gateway) serverTLS(t *networkingapi.ServerTLSSettings) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{AlpnProtocols: []string{"h2", "http/1.1"}, TlsParams: serverParameters(t)}
	out := &tlsv3.DownstreamTlsContext{CommonTlsContext: common, RequireClientCertificate: no()}
	checks := &tlsv3.CertificateValidationContext{
		MatchTypedSubjectAltNames: exactNames(t.GetSubjectAltNames()),
		VerifyCertificateSpki:     t.GetVerifyCertificateSpki(), VerifyCertificateHash: t.GetVerifyCertificateHash(),
	}
	if t.GetCaCrl() != "" {
		checks.Crl = file(t.GetCaCrl()) // the list in a credential goes before it
	}
	combined := func(secret *tlsv3.SdsSecretConfig) {
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: checks, ValidationContextSdsSecretConfig: secret,
			},
		}
	}
	if t.GetMode() == networkingapi.ServerTLSSettings_ISTIO_MUTUAL {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{agentSecret(certSecret)}
		combined(agentSecret(rootSecret))
		out.RequireClientCertificate = yes()
		return transportSocket(tlsSocket, out)
	}
	certificates, authority := credential.Names(t)
	for _, name := range certificates {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, controlPlaneSecret(name))
	}
	if len(certificates) == 0 {
		for _, f := range gateway.CertificateFiles(t) {
			common.TlsCertificates = append(common.TlsCertificates, &tlsv3.TlsCertificate{CertificateChain: file(f[0]), PrivateKey: file(f[1])})
		}
	}
	if credential.Mutual(t) {
		out.RequireClientCertificate = wrapperspb.Bool(t.GetMode() == networkingapi.ServerTLSSettings_MUTUAL)
		if authority != "" {
			combined(controlPlaneSecret(authority))
		} else {
			checks.TrustedCa = file(t.GetCaCertificates())
			common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: checks}
		}
	}
	return transportSocket(tlsSocket, out)
}

func serverParameters(t *networkingapi.ServerTLSSettings) *tlsv3.TlsParameters {
	out := &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsVersion(t.GetMinProtocolVersion()), TlsMaximumProtocolVersion: tlsVersion(t.GetMaxProtocolVersion()),
	}
	if out.GetTlsMinimumProtocolVersion() == tlsv3.TlsParameters_TLS_AUTO {
		out.TlsMinimumProtocolVersion = tlsv3.TlsParameters_TLSv1_2
		if high := out.GetTlsMaximumProtocolVersion(); high != tlsv3.TlsParameters_TLS_AUTO && high < tlsv3.TlsParameters_TLSv1_2 {
			out.TlsMinimumProtocolVersion = high
		}
	}
	for _, suite := range t.GetCipherSuites() {
		if slices.Contains(gateway.KnownCipherSuites(), suite) && !slices.Contains(out.GetCipherSuites(), suite) {
			out.CipherSuites = append(out.CipherSuites, suite)
		}
	}
	return out
}

func tlsVersion(v networkingapi.ServerTLSSettings_TLSProtocol) tlsv3.TlsParameters_TlsProtocol {
	switch v {
	case networkingapi.ServerTLSSettings_TLSV1_0:
		return tlsv3.TlsParameters_TLSv1_0
	case networkingapi.ServerTLSSettings_TLSV1_1:
		return tlsv3.TlsParameters_TLSv1_1
	case networkingapi.ServerTLSSettings_TLSV1_2:
		return tlsv3.TlsParameters_TLSv1_2
	case networkingapi.ServerTLSSettings_TLSV1_3:
		return tlsv3.TlsParameters_TLSv1_3
	}
	return tlsv3.TlsParameters_TLS_AUTO
}
