package l7

import (
	"crypto/tls"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/pkg/crl"
	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
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
		return Socket{Kind: SocketInternal, TLS: inner.TLS, Proxy: inner.Proxy}, strict.At(err, "typed_config.transport_socket")
	case *proxyprotocolv3.ProxyProtocolUpstreamTransport:
		inner, err := compileSocket(m.GetTransportSocket())
		if err == nil && inner.Proxy != 0 {
			err = strict.Errorf("", "a PROXY header inside of another is not supported")
		}
		inner.Proxy = proxyproto.V1
		if m.GetConfig().GetVersion() == corev3.ProxyProtocolConfig_V2 {
			inner.Proxy = proxyproto.V2
		}
		return inner, strict.At(err, "typed_config.transport_socket")
	case *tlsv3.UpstreamTlsContext:
		c, err := compileClientTLS(m)
		return Socket{Kind: SocketTLS, TLS: c}, strict.At(err, "typed_config")
	}
	return Socket{}, strict.Errorf("typed_config", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
}

// tlsCommon is what both ends of TLS are configured with.
type tlsCommon struct {
	certificates     []string // SDS names
	validation       string
	alpn             []string
	minimum, maximum uint16
	ciphers          []string
	sans             []SANMatcher
	caFile, caInline string
	revocation       Revocation
	spki, hashes     []string
	files            []CertificateFiles
	validates        bool
}

// Revocation is where a validation context has lists of revoked certificates, for which authorities ever are in force. Those of an SDS
// resource of its own go before.
type Revocation struct {
	// File has the lists, or Lists is what was in the resource itself; without either nothing is asked for.
	File  string
	Lists *crl.Lists
	// LeafOnly is whether lists are needed for the certificates of peers only.
	LeafOnly bool
}

func compileRevocation(v *tlsv3.CertificateValidationContext) (r Revocation, err error) {
	r.LeafOnly = v.GetOnlyVerifyLeafCertCrl()
	if r.File = v.GetCrl().GetFilename(); r.File != "" {
		return r, nil
	}
	text, err := inside(v.GetCrl())
	if err == nil && len(text) > 0 {
		r.Lists, err = ParseRevoked(text)
	}
	if err != nil {
		return r, strict.At(err, "crl")
	}
	return r, nil
}

// given is whether there are lists.
func (r Revocation) given() bool { return r.File != "" || r.Lists != nil }

func compileCommonTLS(p *tlsv3.CommonTlsContext) (tlsCommon, error) {
	t := tlsCommon{
		alpn:    slices.Clone(p.GetAlpnProtocols()),
		minimum: tlsVersion(p.GetTlsParams().GetTlsMinimumProtocolVersion()),
		maximum: tlsVersion(p.GetTlsParams().GetTlsMaximumProtocolVersion()),
		ciphers: p.GetTlsParams().GetCipherSuites(),
	}
	for _, sds := range p.GetTlsCertificateSdsSecretConfigs() {
		t.certificates = append(t.certificates, sds.GetName())
	}
	if err := t.fileCertificates(p.GetTlsCertificates()); err != nil {
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
	t.spki, t.hashes = v.GetVerifyCertificateSpki(), v.GetVerifyCertificateHash()
	var err error
	if t.revocation, err = compileRevocation(v); err != nil {
		return t, strict.At(err, field)
	}
	if t.revocation.given() && !t.validates {
		return t, strict.At(strict.Errorf("crl", "needs trusted_ca, or a secret that has it"), field)
	}
	t.sans, err = compileSANs(v)
	return t, strict.At(err, field)
}

// fileCertificates are those that are named by their files.
func (t *tlsCommon) fileCertificates(ps []*tlsv3.TlsCertificate) error {
	for i, p := range ps {
		f := CertificateFiles{p.GetCertificateChain().GetFilename(), p.GetPrivateKey().GetFilename()}
		if len(t.certificates) > 0 || f.Certificate == "" || f.Key == "" {
			return strict.AtIndex(strict.Errorf("", "must be a certificate and key in files, beside no others"), "", i)
		}
		t.files = append(t.files, f)
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
	c := &ClientTLS{
		SNI: p.GetSni(), ALPN: t.alpn, Validation: t.validation, PeerSANs: t.sans,
		MinVersion: t.minimum, MaxVersion: t.maximum, AutoSNI: p.GetAutoHostSni(), AutoSANCheck: p.GetAutoSniSanValidation(),
		Insecure: !t.validates, CAFile: t.caFile, Revocation: t.revocation,
	}
	switch {
	case len(t.certificates) > 1 || len(t.files) > 1:
		return nil, strict.Errorf("common_tls_context", "more than one certificate is not supported for clients")
	case len(t.certificates) > 0:
		c.Certificate = t.certificates[0]
	case len(t.files) > 0:
		c.CertFile, c.KeyFile = t.files[0].Certificate, t.files[0].Key
	}
	if t.caInline != "" {
		if c.Trusted, err = ParseAuthorities([]byte(t.caInline), nil); err != nil {
			return nil, strict.Errorf("common_tls_context.validation_context", "%v", err)
		}
	}
	for field, given := range map[string]bool{
		"verify_certificate_spki": len(t.spki) > 0, "verify_certificate_hash": len(t.hashes) > 0,
	} {
		if given {
			return nil, strict.Errorf("common_tls_context.validation_context."+field, "is not supported for clients")
		}
	}
	return c, nil
}
