package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/crl"
)

// material is what an authority signs with. It is immutable: a rotation or reload makes a new one.
type material struct {
	cert *x509.Certificate
	key  crypto.Signer
	// intermediates lead from cert (included) towards the roots; empty if cert is a root itself.
	intermediates []*x509.Certificate
	// roots is the bundle that peers verify with, the one of cert among them.
	roots []*x509.Certificate
	// Encoded once: one PEM for each intermediate with an additional line feed, as the field sends them; the bundle.
	intermediatePEM []string
	rootPEM         []byte
	crl             []byte
}

// newMaterial puts the parts together and refuses what could not serve: then certificates would be issued that nobody
// accepts.
func newMaterial(certPEM, keyPEM, chainPEM, rootPEM []byte, now time.Time) (*material, error) {
	signing, err := certs.ParsePEM(certPEM)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	roots, err := certs.ParsePEM(rootPEM)
	if err != nil {
		return nil, fmt.Errorf("root certificates: %w", err)
	}
	chain := signing[1:]
	if len(bytes.TrimSpace(chainPEM)) > 0 {
		more, err := certs.ParsePEM(chainPEM)
		if err != nil {
			return nil, fmt.Errorf("certificate chain: %w", err)
		}
		chain = append(chain, more...)
	}
	m := &material{cert: signing[0], key: key, roots: unique(roots)}
	for _, c := range unique(append([]*x509.Certificate{m.cert}, chain...)) {
		if !contains(m.roots, c) {
			m.intermediates = append(m.intermediates, c)
			m.intermediatePEM = append(m.intermediatePEM, string(encodeCert(c))+"\n")
		}
	}
	for _, c := range m.roots {
		m.rootPEM = append(m.rootPEM, encodeCert(c)...)
	}
	return m, m.check(now)
}

func (m *material) check(now time.Time) error {
	public, ok := m.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(m.key.Public()) {
		return errors.New("the CA key does not belong to the CA certificate")
	}
	if !m.cert.IsCA || m.cert.KeyUsage != 0 && m.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("the CA certificate is not allowed to sign certificates")
	}
	options := x509.VerifyOptions{
		Roots: pool(m.roots), Intermediates: pool(m.intermediates), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	if _, err := m.cert.Verify(options); err != nil {
		return fmt.Errorf("the CA certificate does not chain to the root certificates: %w", err)
	}
	return nil
}

// notAfter is when the first certificate that a signature of m hangs on expires.
func (m *material) notAfter() time.Time {
	end := m.cert.NotAfter
	for _, c := range m.intermediates {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// rootNotAfter is when the root that m signs under expires: the one of them that its chain ends in.
func (m *material) rootNotAfter() time.Time {
	last := m.cert
	if n := len(m.intermediates); n > 0 {
		last = m.intermediates[n-1]
	}
	var end time.Time
	for _, root := range m.roots {
		if bytes.Equal(root.RawSubject, last.RawIssuer) && root.NotAfter.After(end) {
			end = root.NotAfter
		}
	}
	return end
}

// same tells whether two are made of the same certificates and list of revoked ones.
func (m *material) same(other *material) bool {
	return m.cert.Equal(other.cert) && bytes.Equal(m.rootPEM, other.rootPEM) && bytes.Equal(m.crl, other.crl) &&
		strings.Join(m.intermediatePEM, "") == strings.Join(other.intermediatePEM, "")
}

// parseCRL checks a bundle of lists in PEM form, as those who get it do, and returns it as it is.
func parseCRL(text []byte) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return text, nil
	}
	if block, _ := pem.Decode(text); block == nil {
		return nil, errors.New("not in PEM form")
	}
	if _, err := crl.Parse(text); err != nil {
		return nil, err
	}
	return text, nil
}

// parseKey reads PKCS #8, SEC 1 and PKCS #1. Its errors never hold key material.
func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	for block != nil && block.Type == "EC PARAMETERS" {
		_, rest, _ := bytes.Cut(text, []byte("-----END EC PARAMETERS-----"))
		text = rest
		block, _ = pem.Decode(text)
	}
	if block == nil {
		return nil, errors.New("no private key in PEM form")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block of type %q, want a private key without a passphrase", block.Type)
	}
	if err != nil {
		return nil, errors.New("the private key can't be parsed")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T can't sign", key)
	}
	return signer, nil
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func pool(list []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c)
	}
	return p
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, o := range list {
		if o.Equal(c) {
			return true
		}
	}
	return false
}

func unique(list []*x509.Certificate) []*x509.Certificate {
	var out []*x509.Certificate
	for _, c := range list {
		if !contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}
