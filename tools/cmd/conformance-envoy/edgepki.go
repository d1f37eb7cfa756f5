package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// edgePKI issues the certificates at the edge: of servers and of clients, by name. A name with the prefix other/ is issued by an
// authority that nobody trusts unless told to, one with expired/ has ended.
type edgePKI struct {
	authorities map[string]*authority // "" and "other"
	issued      map[string]*tls.Certificate
}

type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newEdgePKI() (*edgePKI, error) {
	p := &edgePKI{authorities: map[string]*authority{}, issued: map[string]*tls.Certificate{}}
	for i, name := range []string{"", "other"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: "edge " + name, Organization: []string{"edge"}},
			NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		cert, err := sign(template, template, key.Public(), key)
		if err != nil {
			return nil, err
		}
		p.authorities[name] = &authority{key, cert}
	}
	return p, nil
}

func (p *edgePKI) issuer(name string) *authority {
	if strings.HasPrefix(name, "other/") {
		return p.authorities["other"]
	}
	return p.authorities[""]
}

// get returns the certificate of a name, for servers and for clients.
func (p *edgePKI) get(name string) (*tls.Certificate, error) {
	if c := p.issued[name]; c != nil {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	short := name[strings.LastIndex(name, "/")+1:]
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(p.issued) + 100)), Subject: pkix.Name{CommonName: short, Organization: []string{"Clients & Co", "two"}, Country: []string{"NL"}},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{short}, URIs: []*url.URL{{Scheme: "spiffe", Host: "edge.example", Path: "/" + short}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if strings.HasPrefix(name, "expired/") {
		template.NotAfter = time.Now().Add(-time.Hour)
	}
	by := p.issuer(name)
	leaf, err := sign(template, by.cert, key.Public(), by.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{leaf.Raw, by.cert.Raw}, PrivateKey: key, Leaf: leaf}
	p.issued[name] = c
	return c, nil
}

// placeholder is {{cert NAME}}, {{key NAME}}, {{ca}}, {{ca other}} or {{crl NAME}}: PEM in base64, as Secrets have it.
var placeholder = regexp.MustCompile(`\{\{(cert|key|ca|crl)(?: ([^}]+))?\}\}`)

// fill replaces the placeholders of a manifest.
func (p *edgePKI) fill(text string) (string, error) {
	var failed error
	out := placeholder.ReplaceAllStringFunc(text, func(found string) string {
		parts := placeholder.FindStringSubmatch(found)
		pem, err := p.pem(parts[1], parts[2])
		if err != nil {
			failed = fmt.Errorf("%s: %w", found, err)
		}
		return base64.StdEncoding.EncodeToString(pem)
	})
	return out, failed
}

func (p *edgePKI) pem(kind, name string) ([]byte, error) {
	if kind == "ca" {
		return pemOf("CERTIFICATE", p.authorities[name].cert.Raw), nil
	}
	c, err := p.get(name)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "key":
		return keyPEM(c.PrivateKey.(crypto.Signer))
	case "crl":
		by := p.issuer(name)
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(24 * time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)}},
		}, by.cert, by.key)
		return pemOf("X509 CRL", der), err
	}
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pemOf("CERTIFICATE", der)...)
	}
	return chain, nil
}

// write puts what Gateways name by files into a directory.
func (p *edgePKI) write(dir string) error {
	for file, of := range map[string][2]string{
		"edge.pem": {"cert", "files.example.com"}, "edge-key.pem": {"key", "files.example.com"}, "edge-ca.pem": {"ca", ""},
	} {
		text, err := p.pem(of[0], of[1])
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// clientTLS is how a request's client begins.
func (b *testbed) clientTLS(r request) (*tls.Config, error) {
	config := &tls.Config{ServerName: r.TLS, InsecureSkipVerify: true, NextProtos: r.ALPN, MinVersion: tls.VersionTLS10} //nolint:gosec // who answers says so
	if r.TLS == "-" {
		config.ServerName = ""
	}
	versions := map[string]uint16{"": 0, "1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	high, ok := versions[r.TLSMax]
	if !ok {
		return nil, fmt.Errorf("tlsMax: %q is no version", r.TLSMax)
	}
	config.MaxVersion = high
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.Name == r.Cipher {
			config.CipherSuites = []uint16{s.ID}
		}
	}
	if r.Certificate != "" {
		c, err := b.edge.get(r.Certificate)
		if err != nil {
			return nil, err
		}
		// Whatever the server says that it accepts.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
	}
	return config, nil
}

// handshaken are the lines about a handshake that both engines must agree on.
func handshaken(state tls.ConnectionState) string {
	var names []string
	if len(state.PeerCertificates) > 0 {
		names = state.PeerCertificates[0].DNSNames
	}
	return fmt.Sprintf("%s, protocol %q, certificate of %s", tls.VersionName(state.Version), state.NegotiatedProtocol, strings.Join(names, ","))
}
