package envoy

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
)

// systemRoots are the certificate authorities of the proxy's image.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// mutualTLS is that of the mesh, with a sidecar: the identity is one of the endpoints', of which our engine expects exactly the one
// at hand.
func (c Cluster) mutualTLS() *corev3.TransportSocket {
	common := meshTLS(c.Mesh)
	common.TlsParams = nil // sidecars take TLS 1.2 too
	common.AlpnProtocols = []string{"istio"}
	if c.Protocol == HTTP2 {
		common.AlpnProtocols = []string{"istio", "h2"}
	}
	tls := c.Policy.GetTls()
	expected := c.PeerIdentities
	if names := tls.GetSubjectAltNames(); len(names) > 0 {
		expected = names
	}
	if len(expected) > 0 {
		common.GetCombinedValidationContext().DefaultValidationContext = &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: exactNames(expected)}
	}
	sni := tls.GetSni()
	if sni == "" {
		sni = "outbound_." + number(c.Port) + "_." + c.Subset + "_." + c.Host
	}
	return transportSocket(tlsSocket, &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: sni})
}

// originatedTLS is the TLS of its own that a DestinationRule or a BackendTLSPolicy asks the proxy to speak; nil for none.
func (c Cluster) originatedTLS() *corev3.TransportSocket {
	if c.BackendTLS != nil {
		return c.backendTLS()
	}
	s := c.Policy.GetTls()
	if s == nil || s.GetMode() != networkingapi.ClientTLSSettings_SIMPLE && s.GetMode() != networkingapi.ClientTLSSettings_MUTUAL {
		return nil
	}
	common := &tlsv3.CommonTlsContext{TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2}}
	if c.Protocol == HTTP2 {
		common.AlpnProtocols = []string{"h2"}
	} else if c.Protocol.HTTP() {
		common.AlpnProtocols = []string{"http/1.1"}
	}
	validation := &tlsv3.CertificateValidationContext{}
	sans := s.GetSubjectAltNames()
	if len(sans) == 0 {
		sans = c.SubjectAltNames
	}
	if len(sans) == 0 && s.GetSni() != "" {
		sans = []string{s.GetSni()}
	} else if len(sans) == 0 && len(c.Host) > 0 && c.Host[0] != '*' {
		sans = []string{c.Host}
	}
	validation.MatchTypedSubjectAltNames = exactNames(sans)
	if s.GetCaCrl() != "" {
		validation.Crl = file(s.GetCaCrl()) // the list in a credential goes before it
	}
	certificate, authority := credential.ClientNames(s)
	if certificate != "" {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{controlPlaneSecret(certificate)}
	}
	switch {
	case s.GetInsecureSkipVerify().GetValue():
	case authority != "":
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: validation, ValidationContextSdsSecretConfig: controlPlaneSecret(authority),
			},
		}
	default:
		roots := s.GetCaCertificates()
		if roots == "" {
			roots = systemRoots
		}
		validation.TrustedCa = file(roots)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}
	}
	if s.GetMode() == networkingapi.ClientTLSSettings_MUTUAL && certificate == "" && s.GetClientCertificate() != "" {
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(s.GetClientCertificate()), PrivateKey: file(s.GetPrivateKey())}}
	}
	sni := s.GetSni()
	if sni == "" && len(c.Host) > 0 && c.Host[0] != '*' {
		sni = c.Host
	}
	return transportSocket(tlsSocket, &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: sni})
}

// exactNames match certificates that have one of the names.
func exactNames(names []string) []*tlsv3.SubjectAltNameMatcher {
	var out []*tlsv3.SubjectAltNameMatcher
	for _, name := range names {
		out = append(out, &tlsv3.SubjectAltNameMatcher{
			SanType: sanType(name), Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}},
		})
	}
	return out
}

// sanType is the one that a name can be of.
func sanType(san string) tlsv3.SubjectAltNameMatcher_SanType {
	if _, err := netip.ParseAddr(san); err == nil {
		return tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	}
	if strings.Contains(san, ":") {
		return tlsv3.SubjectAltNameMatcher_URI
	}
	return tlsv3.SubjectAltNameMatcher_DNS
}

func file(name string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
}
