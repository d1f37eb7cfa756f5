// Package testkit holds what tests of several packages need. Only tests import it, and the beds of tools that test and measure.
package testkit

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// CA is a certificate authority in memory. It issues to whoever asks.
type CA struct {
	Root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a root valid for a day.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	return &CA{Root: root, key: key}, err
}

// Chain signs a request for the given identity, which may be another one than requested, and answers as the CSR service
// does: leaf, then root.
func (c *CA) Chain(csrPEM []byte, id spiffe.ID, lifetime time.Duration) ([]string, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil {
		return nil, errors.New("the request is not in PEM form")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.Root, csr.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	encode := func(der []byte) string { return string(encode("CERTIFICATE", der)) + "\n" }
	return []string{encode(der), encode(c.Root.Raw)}, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Issue implements certs.Issuer.
func (c *CA) Issue(_ context.Context, id spiffe.ID) (*certs.Workload, error) {
	csr, key, err := certs.NewCSR(id)
	if err != nil {
		return nil, err
	}
	chain, err := c.Chain(csr, id, time.Hour)
	if err != nil {
		return nil, err
	}
	return certs.FromChain(id, key, chain)
}
