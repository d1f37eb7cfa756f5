package l7

import (
	"crypto/tls"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

func (c *Cluster) sockets(p *clusterv3.Cluster) error {
	var err error
	if c.Socket, err = compileSocket(p.GetTransportSocket()); err != nil {
		return strict.At(err, "transport_socket")
	}
	for i, m := range p.GetTransportSocketMatches() {
		s, err := compileSocket(m.GetTransportSocket())
		if err != nil {
			return strict.AtIndex(strict.At(err, "transport_socket"), "transport_socket_matches", i)
		}
		sm := SocketMatch{Name: m.GetName(), Match: map[string]string{}, Socket: s}
		for k, v := range m.GetMatch().GetFields() {
			sm.Match[k] = v.GetStringValue()
		}
		c.Sockets = append(c.Sockets, sm)
	}
	return nil
}

func compileSocket(p *corev3.TransportSocket) (Socket, error) {
	if p == nil {
		return Socket{}, nil
	}
	m, err := strict.Unpack(p.GetTypedConfig())
	if err != nil {
		return Socket{}, strict.At(err, "typed_config")
	}
	switch m := m.(type) {
	case *rawv3.RawBuffer:
		return Socket{}, nil
	case *internalv3.InternalUpstreamTransport:
		inner, err := compileSocket(m.GetTransportSocket())
		if err == nil && inner.Kind == SocketInternal {
			err = strict.Errorf("", "an internal socket inside of another is not supported")
		}
		return Socket{Kind: SocketInternal, TLS: inner.TLS}, strict.At(err, "typed_config.transport_socket")
	case *tlsv3.UpstreamTlsContext:
		c, err := compileClientTLS(m)
		return Socket{Kind: SocketTLS, TLS: c}, strict.At(err, "typed_config")
	}
	return Socket{}, strict.Errorf("typed_config", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
}

// tlsCommon is what both ends of TLS are configured with.
type tlsCommon struct {
	certificate, validation string
	alpn                    []string
	minimum, maximum        uint16
	sans                    []SANMatcher
	caFile, caInline        string
	certFile, keyFile       string
	validates               bool
}

func compileCommonTLS(p *tlsv3.CommonTlsContext) (tlsCommon, error) {
	t := tlsCommon{
		alpn:    slices.Clone(p.GetAlpnProtocols()),
		minimum: tlsVersion(p.GetTlsParams().GetTlsMinimumProtocolVersion()),
		maximum: tlsVersion(p.GetTlsParams().GetTlsMaximumProtocolVersion()),
	}
	switch sds := p.GetTlsCertificateSdsSecretConfigs(); len(sds) {
	case 0:
	case 1:
		t.certificate = sds[0].GetName()
	default:
		return t, strict.Errorf("tls_certificate_sds_secret_configs", "more than one is not supported")
	}
	if err := t.certificates(p.GetTlsCertificates()); err != nil {
		return t, strict.At(err, "tls_certificates")
	}
	var v *tlsv3.CertificateValidationContext
	field := "validation_context"
	switch k := p.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		v = k.ValidationContext
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		t.validation, t.validates = k.ValidationContextSdsSecretConfig.GetName(), true
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		field = "combined_validation_context.default_validation_context"
		v = k.CombinedValidationContext.GetDefaultValidationContext()
		t.validation = k.CombinedValidationContext.GetValidationContextSdsSecretConfig().GetName()
		t.validates = t.validation != ""
	}
	if ca := v.GetTrustedCa(); ca != nil {
		t.caFile, t.validates = ca.GetFilename(), true
		if t.caInline = ca.GetInlineString(); t.caInline == "" {
			t.caInline = string(ca.GetInlineBytes())
		}
	}
	var err error
	t.sans, err = compileSANs(v)
	return t, strict.At(err, field)
}

// certificates are those that are named by their files.
func (t *tlsCommon) certificates(ps []*tlsv3.TlsCertificate) error {
	if len(ps) == 0 {
		return nil
	}
	t.certFile, t.keyFile = ps[0].GetCertificateChain().GetFilename(), ps[0].GetPrivateKey().GetFilename()
	if len(ps) > 1 || t.certificate != "" || t.certFile == "" || t.keyFile == "" {
		return strict.Errorf("", "must be one certificate and key, in files")
	}
	return nil
}

func compileSANs(v *tlsv3.CertificateValidationContext) ([]SANMatcher, error) {
	var out []SANMatcher
	for i, p := range v.GetMatchTypedSubjectAltNames() {
		m, err := match.CompileString(p.GetMatcher())
		if err != nil {
			return nil, strict.AtIndex(strict.At(err, "matcher"), "match_typed_subject_alt_names", i)
		}
		s := SANMatcher{Matcher: m}
		switch p.GetSanType() {
		case tlsv3.SubjectAltNameMatcher_URI:
			s.Kind = SANURI
		case tlsv3.SubjectAltNameMatcher_DNS:
			s.Kind = SANDNS
		case tlsv3.SubjectAltNameMatcher_EMAIL:
			s.Kind = SANEmail
		case tlsv3.SubjectAltNameMatcher_IP_ADDRESS:
			s.Kind = SANIP
		default:
			return nil, strict.AtIndex(strict.Errorf("san_type", "%v is not supported", p.GetSanType()), "match_typed_subject_alt_names", i)
		}
		out = append(out, s)
	}
	for i, p := range v.GetMatchSubjectAltNames() { //nolint:staticcheck // deprecated, and still sent
		m, err := match.CompileString(p)
		if err != nil {
			return nil, strict.AtIndex(err, "match_subject_alt_names", i)
		}
		out = append(out, SANMatcher{Kind: SANAny, Matcher: m})
	}
	return out, nil
}

func tlsVersion(v tlsv3.TlsParameters_TlsProtocol) uint16 {
	switch v {
	case tlsv3.TlsParameters_TLSv1_0:
		return tls.VersionTLS10
	case tlsv3.TlsParameters_TLSv1_1:
		return tls.VersionTLS11
	case tlsv3.TlsParameters_TLSv1_2:
		return tls.VersionTLS12
	case tlsv3.TlsParameters_TLSv1_3:
		return tls.VersionTLS13
	}
	return 0
}

func compileClientTLS(p *tlsv3.UpstreamTlsContext) (*ClientTLS, error) {
	t, err := compileCommonTLS(p.GetCommonTlsContext())
	if err != nil {
		return nil, strict.At(err, "common_tls_context")
	}
	return &ClientTLS{
		SNI: p.GetSni(), ALPN: t.alpn, Certificate: t.certificate, Validation: t.validation, PeerSANs: t.sans,
		MinVersion: t.minimum, MaxVersion: t.maximum, AutoSNI: p.GetAutoHostSni(), AutoSANCheck: p.GetAutoSniSanValidation(),
		Insecure: !t.validates, CAFile: t.caFile, CAInline: t.caInline, CertFile: t.certFile, KeyFile: t.keyFile,
	}, nil
}

func compileServerTLS(p *tlsv3.DownstreamTlsContext) (*ServerTLS, error) {
	t, err := compileCommonTLS(p.GetCommonTlsContext())
	if err != nil {
		return nil, strict.At(err, "common_tls_context")
	}
	s := &ServerTLS{
		Certificate: t.certificate, Validation: t.validation, RequireClient: p.GetRequireClientCertificate().GetValue(),
		ALPN: t.alpn, MinVersion: t.minimum, MaxVersion: t.maximum,
	}
	for _, m := range t.sans {
		if m.Kind != SANURI {
			return nil, strict.Errorf("common_tls_context.validation_context.match_typed_subject_alt_names.san_type", "must be URI for clients")
		}
		s.PeerSANs = append(s.PeerSANs, m)
	}
	if t.certFile != "" {
		return nil, strict.Errorf("common_tls_context.tls_certificates", "is not supported: use SDS")
	}
	if s.Certificate == "" {
		return nil, strict.Errorf("common_tls_context.tls_certificate_sds_secret_configs", "is required")
	}
	if t.caFile != "" || t.caInline != "" {
		return nil, strict.Errorf("common_tls_context.validation_context.trusted_ca", "is not supported: use SDS")
	}
	return s, nil
}
