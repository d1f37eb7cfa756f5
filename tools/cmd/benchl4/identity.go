package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// identity is a workload's certificate and key in a form that can be passed to a child.
type identity struct {
	URI   string
	Key   []byte // PKCS 8
	Chain []string
}

// newIdentities makes the identities of both ends, issued by a CA that is forgotten at once.
func newIdentities() (near, far identity, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return near, far, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca, err := sign(template, template, caKey.Public(), caKey)
	if err != nil {
		return near, far, err
	}
	near, err = issue(ca, caKey, spiffe.ID{TrustDomain: "cluster.local", Namespace: "bench", ServiceAccount: "near"})
	if err != nil {
		return near, far, err
	}
	far, err = issue(ca, caKey, spiffe.ID{TrustDomain: "cluster.local", Namespace: "bench", ServiceAccount: "far"})
	return near, far, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func issue(ca *x509.Certificate, caKey crypto.Signer, id spiffe.ID) (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	leaf, err := sign(template, ca, key.Public(), caKey)
	if err != nil {
		return identity{}, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity{}, err
	}
	out := identity{URI: id.String(), Key: raw}
	for _, cert := range []*x509.Certificate{leaf, ca} {
		out.Chain = append(out.Chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})))
	}
	return out, nil
}

// workload is the identity as proxies use it.
func (i identity) workload() (*certs.Workload, error) {
	id, err := spiffe.Parse(i.URI)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(i.Key)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", i.URI, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("a key that cannot sign")
	}
	return certs.FromChain(id, signer, i.Chain)
}
