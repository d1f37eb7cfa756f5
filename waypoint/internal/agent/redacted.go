package agent

import (
	"crypto/tls"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Redacted shows a secret of the control plane without its private key; certificate and authorities may be nil.
func Redacted(name string, certificate *tls.Certificate, authorities *l7.Authorities) *tlsv3.Secret {
	out := &tlsv3.Secret{Name: name}
	if certificate != nil {
		out.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(encode(certificate.Certificate)), PrivateKey: inline([]byte(redacted)),
		}}
	}
	if authorities != nil {
		var certs [][]byte
		for _, c := range authorities.Certs {
			certs = append(certs, c.Raw)
		}
		out.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(encode(certs))}}
	}
	return out
}
