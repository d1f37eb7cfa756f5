package l7

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/pkg/crl"
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

// Authorities are whose signatures under certificates of peers count, and what they have revoked. They are immutable.
type Authorities struct {
	Pool  *x509.CertPool
	Certs []*x509.Certificate
	// Revoked is nil where nobody asks for lists.
	Revoked *crl.Lists
	// LeafOnly is whether lists are needed for the certificates of peers only, not for those of the authorities above them.
	LeafOnly bool

	sum [sha256.Size]byte // of the certificates' text
}

// Same is whether both trust and refuse the same.
func (a *Authorities) Same(b *Authorities) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return a.sum == b.sum && a.LeafOnly == b.LeafOnly && a.Revoked.Same(b.Revoked)
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
		v := k.ValidationContext
		revoked, err := inside(v.GetCrl())
		if err != nil {
			return nil, strict.At(err, "validation_context.crl")
		}
		if s.Authorities, err = ParseAuthorities(dataOf(v.GetTrustedCa()), revoked); err != nil {
			return nil, strict.Errorf("validation_context", "%v", err)
		}
		s.Authorities.LeafOnly = v.GetOnlyVerifyLeafCertCrl()
	default:
		return nil, strict.Errorf("type", "must be tls_certificate or validation_context")
	}
	return s, nil
}

// ParseAuthorities reads PEM: certificates, and lists of what they have revoked, or nothing.
func ParseAuthorities(trusted, revoked []byte) (*Authorities, error) {
	a := &Authorities{Pool: x509.NewCertPool(), sum: sha256.Sum256(trusted)}
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
	if len(revoked) > 0 {
		var err error
		if a.Revoked, err = ParseRevoked(revoked); err != nil {
			return nil, fmt.Errorf("crl: %w", err)
		}
	}
	return a, nil
}

// ParseRevoked reads lists of revoked certificates. A text that has none is an error: whoever gives one wants certificates to be checked.
func ParseRevoked(text []byte) (*crl.Lists, error) {
	lists, err := crl.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case lists.Len() == 0:
		return nil, errors.New("there is no list of revoked certificates")
	}
	return lists, nil
}

// inside returns what must be in the resource itself, if it is given.
func inside(d *corev3.DataSource) ([]byte, error) {
	switch d.GetSpecifier().(type) {
	case nil, *corev3.DataSource_InlineBytes, *corev3.DataSource_InlineString:
		return dataOf(d), nil
	}
	return nil, strict.Errorf("", "must be in the resource itself")
}

func dataOf(d *corev3.DataSource) []byte {
	if b := d.GetInlineBytes(); len(b) > 0 {
		return b
	}
	return []byte(d.GetInlineString())
}
