package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

const trustDomain = "cluster.local"

// account is an identity of the test bed.
func account(name string) spiffe.ID {
	return spiffe.ID{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: name}
}

// authority is the mesh's, for the time of a run.
type authority struct {
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	return &authority{key, root}, err
}

// chain is a certificate for a key, and the root.
func (a *authority) chain(id spiffe.ID, key crypto.PublicKey) ([]string, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: a.root.NotBefore, NotAfter: a.root.NotAfter,
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key, a.key)
	if err != nil {
		return nil, err
	}
	return []string{encode("CERTIFICATE", der), encode("CERTIFICATE", a.root.Raw)}, nil
}

// sign answers a request for a certificate.
func (a *authority) sign(request string, id spiffe.ID) ([]string, error) {
	block, _ := pem.Decode([]byte(request))
	if block == nil {
		return nil, errors.New("the request for a certificate is not in PEM form")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return a.chain(id, csr.PublicKey)
}

// issue makes a key and its certificate. The second result is the key in PEM form.
func (a *authority) issue(id spiffe.ID) (*certs.Workload, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	chain, err := a.chain(id, key.Public())
	if err != nil {
		return nil, "", err
	}
	w, err := certs.FromChain(id, key, chain)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return w, encode("PRIVATE KEY", der), err
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
