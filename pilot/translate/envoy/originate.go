package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// systemRoots are the certificate authorities of the proxy's image.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// originatedTLS is the TLS that a DestinationRule asks the proxy to speak; nil for none. Mutual TLS of the mesh is not asked for
// here: endpoints that have it say so themselves.
func (c Cluster) originatedTLS() *corev3.TransportSocket {
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
	for _, san := range sans {
		for _, kind := range sanTypes(san) {
			validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
				SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: san}},
			})
		}
	}
	if !s.GetInsecureSkipVerify().GetValue() {
		roots := s.GetCaCertificates()
		if roots == "" {
			roots = systemRoots
		}
		validation.TrustedCa = file(roots)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}
	}
	if s.GetMode() == networkingapi.ClientTLSSettings_MUTUAL && s.GetClientCertificate() != "" {
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(s.GetClientCertificate()), PrivateKey: file(s.GetPrivateKey())}}
	}
	sni := s.GetSni()
	if sni == "" && len(c.Host) > 0 && c.Host[0] != '*' {
		sni = c.Host
	}
	return transportSocket(tlsSocket, &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: sni})
}

// sanTypes are those that a name can be of.
func sanTypes(san string) []tlsv3.SubjectAltNameMatcher_SanType {
	for i := range len(san) {
		if san[i] == ':' {
			return []tlsv3.SubjectAltNameMatcher_SanType{tlsv3.SubjectAltNameMatcher_URI}
		}
	}
	return []tlsv3.SubjectAltNameMatcher_SanType{tlsv3.SubjectAltNameMatcher_DNS}
}

func file(name string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
}
