package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

const trustDomain = "cluster.local"

// pki is the mesh's certificate authority, which the control plane gets as a plugged-in one, and the issuer of tokens.
type pki struct {
	key      *ecdsa.PrivateKey
	cert     *x509.Certificate
	tokenKey *ecdsa.PrivateKey

	mu     sync.Mutex // guards what follows
	issued map[spiffe.ID]*certs.Workload
	tokens map[string]string // by their claims: signatures are different each time
}

func newPKI() (*pki, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tokenKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{trustDomain}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &pki{key: key, cert: cert, tokenKey: tokenKey, issued: map[spiffe.ID]*certs.Workload{}, tokens: map[string]string{}}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pemOf("PRIVATE KEY", der), nil
}

// write puts the authority's material into the directory that the control plane reads, and the keys of tokens beside it.
func (p *pki) write(dir string) error {
	key, err := keyPEM(p.key)
	if err != nil {
		return err
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.tokenKey.Public(), KeyID: "k", Use: "sig"}}})
	if err != nil {
		return err
	}
	cert := pemOf("CERTIFICATE", p.cert.Raw)
	client, err := p.workload("default", "client")
	if err != nil {
		return err
	}
	clientKey, err := keyPEM(client.Certificate.PrivateKey.(crypto.Signer))
	if err != nil {
		return err
	}
	good, err := revocationList(p.cert, p.key, p.cert.NotAfter)
	if err != nil {
		return err
	}
	vault, err := revocationList(p.cert, p.key, p.cert.NotAfter, serverSerial("vault.example.com"))
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"crl.pem": good, "crl-vault.pem": vault,
		"client.pem": pemOf("CERTIFICATE", client.Certificate.Certificate[0]), "client-key.pem": clientKey,
		"ca-cert.pem": cert, "ca-key.pem": key, "root-cert.pem": cert, "cert-chain.pem": cert, "jwks.json": keys,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// workload returns the certificate of an identity.
func (p *pki) workload(namespace, account string) (*certs.Workload, error) {
	id := spiffe.ID{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: account}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.issued[id]; w != nil {
		return w, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := sign(&x509.Certificate{
		SerialNumber: big.NewInt(int64(len(p.issued) + 2)), NotBefore: p.cert.NotBefore, NotAfter: p.cert.NotAfter,
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, p.cert, key.Public(), p.key)
	if err != nil {
		return nil, err
	}
	w, err := certs.FromChain(id, key, []string{string(pemOf("CERTIFICATE", leaf.Raw)), string(pemOf("CERTIFICATE", p.cert.Raw))})
	if err != nil {
		return nil, err
	}
	p.issued[id] = w
	return w, nil
}

// server is the certificate of an application.
func (p *pki) server(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := sign(&x509.Certificate{
		SerialNumber: serverSerial(name), NotBefore: p.cert.NotBefore, NotAfter: p.cert.NotAfter, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, p.cert, key.Public(), p.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, p.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// serverSerial is the serial number of an application's certificate, by which it can be revoked before it is issued.
func serverSerial(name string) *big.Int {
	sum := sha256.Sum256([]byte(name))
	return new(big.Int).SetBytes(sum[:8])
}

// token is a ServiceAccount token as a pod has it.
func (p *pki) token(namespace, account, pod string) (string, error) {
	return p.signed(map[string]any{
		"iss": "https://kubernetes.default.svc.cluster.local", "aud": []string{"istio-ca"}, "exp": time.Now().Add(12 * time.Hour).Unix(),
		"sub": "system:serviceaccount:" + namespace + ":" + account,
		"kubernetes.io": map[string]any{
			"namespace": namespace, "pod": map[string]any{"name": pod, "uid": pod}, "serviceaccount": map[string]any{"name": account, "uid": account},
		},
	})
}

// signed is a token with any claims.
func (p *pki) signed(claims map[string]any) (string, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if token := p.tokens[string(text)]; token != "" {
		return token, nil
	}
	token, err := p.sign(claims)
	p.tokens[string(text)] = token
	return token, err
}

func (p *pki) sign(claims map[string]any) (string, error) {
	options := (&jose.SignerOptions{}).WithHeader("kid", "k")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.tokenKey}, options)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}
