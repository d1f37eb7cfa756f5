package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// authority signs certificates of servers.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, key, cert}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) issue(serial int64) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"server.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) revoke(serial int64) []byte {
	a.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now().Add(-time.Minute)}},
	}, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// meet makes a handshake between the configuration of a client and a server.
func meet(t *testing.T, m *Manager, want *l7.ClientTLS, server *tls.Config) error {
	t.Helper()
	config, err := m.clientTLS(t.Context(), want, "", &l7.Endpoint{})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = tls.Server(c, server).HandshakeContext(t.Context()) // the client's side tells
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	err = tls.Client(conn, config).HandshakeContext(t.Context())
	conn.Close()
	<-done
	return err
}

// Credentials come by SDS: without them no connection is made, with others in their place neither.
func TestCredentialsOfClients(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	trusted, err := l7.ParseAuthorities(ca.pem(), nil)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := l7.ParseAuthorities(other.pem(), nil)
	if err != nil {
		t.Fatal(err)
	}
	own := ca.issue(7)
	m := &Manager{}
	m.cfg.Store(l7.NewConfig().With(l7.Update{Secrets: map[string]*l7.Secret{
		"own": {Certificate: &own}, "ca": {Authorities: trusted}, "other": {Authorities: strange},
	}}))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	server := &tls.Config{Certificates: []tls.Certificate{ca.issue(2)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: tls.VersionTLS12}
	for name, tt := range map[string]struct {
		certificate, validation, want string
	}{
		"both":                    {"own", "ca", ""},
		"no certificate":          {"gone", "ca", "the secret gone is not there"},
		"no authorities":          {"own", "gone", "the secret gone is not there"},
		"another authority":       {"own", "other", "unknown authority"},
		"a certificate as roots":  {"own", "own", "the secret own is not there"},
		"roots as a certificate":  {"ca", "ca", "the secret ca is not there"},
		"a client without either": {"", "ca", "handshake failure"},
	} {
		err := meet(t, m, &l7.ClientTLS{Certificate: tt.certificate, Validation: tt.validation}, server)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// A server whose certificate is revoked is none to talk to.
func TestRevokedServers(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	roots, list := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "crl.pem")
	for name, data := range map[string][]byte{roots: ca.pem(), list: ca.revoke(3)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &Manager{}
	m.cfg.Store(l7.NewConfig())
	want := &l7.ClientTLS{CAFile: roots, CRLFile: list}
	if err := meet(t, m, want, &tls.Config{Certificates: []tls.Certificate{ca.issue(2)}}); err != nil {
		t.Errorf("not revoked: %v", err)
	}
	if err := meet(t, m, want, &tls.Config{Certificates: []tls.Certificate{ca.issue(3)}}); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked: %v", err)
	}
	if err := meet(t, m, &l7.ClientTLS{CAFile: roots, CRLFile: filepath.Join(dir, "gone")}, &tls.Config{Certificates: []tls.Certificate{ca.issue(2)}}); err == nil {
		t.Error("a list that cannot be read is ignored")
	}
}
