package main

import (
	"cmp"
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
// authority that nobody trusts unless told to, one with middle/ by an authority below the root, one with expired/ has ended.
type edgePKI struct {
	authorities map[string]*authority // root, other and middle
	issued      map[string]*tls.Certificate
}

type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newEdgePKI() (*edgePKI, error) {
	p := &edgePKI{authorities: map[string]*authority{}, issued: map[string]*tls.Certificate{}}
	for i, name := range []string{edgeRoot, "other", "middle"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: "edge " + name, Organization: []string{"edge"}},
			NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		above := &authority{key, template}
		if name == "middle" {
			above = p.authorities[edgeRoot]
		}
		cert, err := sign(template, above.cert, key.Public(), above.key)
		if err != nil {
			return nil, err
		}
		p.authorities[name] = &authority{key, cert}
	}
	return p, nil
}

// edgeRoot is the authority of names without a prefix.
const edgeRoot = "root"

func (p *edgePKI) issuer(name string) *authority {
	if prefix, _, below := strings.Cut(name, "/"); below && p.authorities[prefix] != nil {
		return p.authorities[prefix]
	}
	return p.authorities[edgeRoot]
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

// placeholder is {{cert NAME}}, {{key NAME}}, {{ca AUTHORITY…}} (the root without one), {{crl NAME…}}, {{crl-expired NAME…}} or
// {{crl-and-expired NAME…}}, with one list for each name, which its issuer has revoked: PEM in base64, as Secrets have it.
var placeholder = regexp.MustCompile(`\{\{(cert|key|ca|crl|crl-expired|crl-and-expired)(?: ([^}]+))?\}\}`)

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
	switch kind {
	case "ca":
		return p.trusted(name)
	case "crl":
		return p.lists(name, time.Now().Add(24*time.Hour))
	case "crl-expired":
		return p.lists(name, time.Now().Add(-time.Minute))
	case "crl-and-expired":
		old, err := p.lists(name, time.Now().Add(-time.Minute))
		if err != nil {
			return nil, err
		}
		next, err := p.lists(name, time.Now().Add(24*time.Hour))
		return append(old, next...), err
	}
	c, err := p.get(name)
	if err != nil {
		return nil, err
	}
	if kind == "key" {
		return keyPEM(c.PrivateKey.(crypto.Signer))
	}
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pemOf("CERTIFICATE", der)...)
	}
	return chain, nil
}

// trusted is the certificates of authorities, by their names.
func (p *edgePKI) trusted(names string) (out []byte, err error) {
	for _, name := range strings.Fields(cmp.Or(names, edgeRoot)) {
		a := p.authorities[name]
		if a == nil {
			return nil, fmt.Errorf("there is no authority %s", name)
		}
		out = append(out, pemOf("CERTIFICATE", a.cert.Raw)...)
	}
	return out, nil
}

// lists has one of the issuer of each name, with that name revoked, which may be of an authority.
func (p *edgePKI) lists(names string, until time.Time) (out []byte, err error) {
	for _, name := range strings.Fields(names) {
		var revoked *x509.Certificate
		if a := p.authorities[name]; a != nil {
			revoked = a.cert
		} else {
			c, err := p.get(name)
			if err != nil {
				return nil, err
			}
			revoked = c.Leaf
		}
		list, err := revocationList(p.issuer(name).cert, p.issuer(name).key, until, revoked.SerialNumber)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func revocationList(by *x509.Certificate, key crypto.Signer, until time.Time, serials ...*big.Int) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: until}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by, key)
	return pemOf("X509 CRL", der), err
}

// write puts what Gateways name by files into a directory.
func (p *edgePKI) write(dir string) error {
	for file, of := range map[string][2]string{
		"edge.pem": {"cert", "files.example.com"}, "edge-key.pem": {"key", "files.example.com"}, "edge-ca.pem": {"ca", ""}, "edge-crl.pem": {"crl", "gone"},
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
