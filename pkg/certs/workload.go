// Package certs holds what a workload proves its identity with: requests, issued chains, TLS settings and rotation.
package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Workload is an issued identity: key, chain and the roots it trusts. It is immutable.
type Workload struct {
	ID          spiffe.ID
	Certificate tls.Certificate // Leaf is set; the chain holds the intermediates, not the roots
	Roots       *x509.CertPool
	RootCerts   []*x509.Certificate
}

// NotBefore is when the leaf becomes valid.
func (w *Workload) NotBefore() time.Time { return w.Certificate.Leaf.NotBefore }

// NotAfter is when the first certificate of the chain expires.
func (w *Workload) NotAfter() time.Time {
	end := w.Certificate.Leaf.NotAfter
	for _, der := range w.Certificate.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil && cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}

// Issuer obtains certificates.
type Issuer interface {
	// Issue returns a fresh certificate for id, with a fresh key.
	Issue(ctx context.Context, id spiffe.ID) (*Workload, error)
}

// NewCSR makes a P-256 key and a PEM request with an empty subject and id as its only name.
func NewCSR(id spiffe.ID) (csrPEM []byte, key crypto.Signer, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %s: %w", id, err)
	}
	template := &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA256, URIs: []*url.URL{id.URL()}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request for %s: %w", id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), private, nil
}

// FromChain reads what a CA answered: the leaf, then one intermediate an element, and as the last element the root
// bundle, which may hold several certificates. The leaf must be for id and key and chain to the bundle.
func FromChain(id spiffe.ID, key crypto.Signer, chain []string) (*Workload, error) {
	if len(chain) < 2 {
		return nil, fmt.Errorf("certificate for %s: the answer has %d elements, want leaf and roots at least", id, len(chain))
	}
	w := &Workload{ID: id, Roots: x509.NewCertPool(), Certificate: tls.Certificate{PrivateKey: key}}
	intermediates := x509.NewCertPool()
	for i, element := range chain {
		parsed, err := ParsePEM([]byte(element))
		if err != nil {
			return nil, fmt.Errorf("certificate for %s: element %d of the chain: %w", id, i, err)
		}
		if i == len(chain)-1 {
			w.RootCerts = parsed
			continue
		}
		for _, cert := range parsed {
			if w.Certificate.Leaf == nil {
				w.Certificate.Leaf = cert
			} else {
				intermediates.AddCert(cert)
			}
			w.Certificate.Certificate = append(w.Certificate.Certificate, cert.Raw)
		}
	}
	for _, root := range w.RootCerts {
		w.Roots.AddCert(root)
	}
	return w, checkLeaf(w, intermediates)
}

// checkLeaf refuses an answer that would not work, or that is somebody else's.
func checkLeaf(w *Workload, intermediates *x509.CertPool) error {
	leaf := w.Certificate.Leaf
	if got, ok := spiffe.FromCertificate(leaf); !ok || got != w.ID {
		return fmt.Errorf("certificate for %s: the CA issued it for %q", w.ID, got)
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(w.Certificate.PrivateKey.(crypto.Signer).Public()) {
		return fmt.Errorf("certificate for %s: it is for another key than the one requested", w.ID)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: w.Roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("certificate for %s: it does not chain to the roots that came with it: %w", w.ID, err)
	}
	return nil
}

// ParsePEM reads all certificates of a PEM text; there must be one at least, and nothing else.
func ParsePEM(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block of type %q, want CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return out, nil
}
