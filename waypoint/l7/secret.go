package l7

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Names of the secrets that the proxy has of itself: its certificate in the mesh, and the mesh's authorities.
const (
	OwnCertificate = "default"
	OwnRoots       = "ROOTCA"
)

// Secret is a compiled Secret. It is immutable; no error about one has anything of its content.
type Secret struct {
	Name string
	// Certificate is set for a certificate and its key.
	Certificate *tls.Certificate
	// Authorities is set for who verifies peers.
	Authorities *Authorities
}

// Authorities are whose signatures under certificates of peers count, and what they have revoked.
type Authorities struct {
	Pool    *x509.CertPool
	Certs   []*x509.Certificate
	Revoked []*x509.RevocationList
}

// CompileSecret makes a secret's table.
func CompileSecret(p *tlsv3.Secret) (*Secret, error) {
	if err := strict.Check(p); err != nil {
		return nil, err
	}
	s := &Secret{Name: p.GetName()}
	switch k := p.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		pair, err := tls.X509KeyPair(dataOf(k.TlsCertificate.GetCertificateChain()), dataOf(k.TlsCertificate.GetPrivateKey()))
		if err != nil {
			return nil, strict.Errorf("tls_certificate", "is no certificate with its private key")
		}
		s.Certificate = &pair
	case *tlsv3.Secret_ValidationContext:
		var err error
		s.Authorities, err = ParseAuthorities(dataOf(k.ValidationContext.GetTrustedCa()), dataOf(k.ValidationContext.GetCrl()))
		if err != nil {
			return nil, strict.Errorf("validation_context", "%v", err)
		}
	default:
		return nil, strict.Errorf("type", "must be tls_certificate or validation_context")
	}
	return s, nil
}

// ParseAuthorities reads PEM.
func ParseAuthorities(trusted, revoked []byte) (*Authorities, error) {
	a := &Authorities{Pool: x509.NewCertPool()}
	for rest := trusted; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, errors.New("trusted_ca is something else than certificates")
		}
		a.Certs = append(a.Certs, c)
		a.Pool.AddCert(c)
	}
	if len(a.Certs) == 0 {
		return nil, errors.New("trusted_ca has no certificate")
	}
	for rest := revoked; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, errors.New("crl is something else than lists of revoked certificates")
		}
		a.Revoked = append(a.Revoked, list)
	}
	return a, nil
}

func dataOf(d *corev3.DataSource) []byte {
	if b := d.GetInlineBytes(); len(b) > 0 {
		return b
	}
	return []byte(d.GetInlineString())
}
