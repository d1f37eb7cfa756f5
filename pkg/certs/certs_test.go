package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

var (
	alice = spiffe.ID{TrustDomain: "cluster.local", Namespace: "a", ServiceAccount: "alice"}
	bob   = spiffe.ID{TrustDomain: "cluster.local", Namespace: "b", ServiceAccount: "bob"}
)

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// chain signs the request for the given name, which may be another one than requested.
func (a *authority) chain(t *testing.T, csrPEM []byte, id spiffe.ID, lifetime time.Duration) []string {
	t.Helper()
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + "\n"
	}
	return []string{encode(der), encode(a.cert.Raw)}
}

func (a *authority) issue(t *testing.T, id spiffe.ID) *certs.Workload {
	t.Helper()
	csr, key, err := certs.NewCSR(id)
	if err != nil {
		t.Fatal(err)
	}
	w, err := certs.FromChain(id, key, a.chain(t, csr, id, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestFromChainRefusesWhatIsNotOurs(t *testing.T) {
	ca := newAuthority(t)
	csr, key, err := certs.NewCSR(alice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certs.FromChain(alice, key, ca.chain(t, csr, bob, time.Hour)); err == nil {
		t.Error("another identity was accepted")
	}
	if _, err := certs.FromChain(alice, key, ca.chain(t, csr, alice, -time.Minute)); err == nil {
		t.Error("an expired certificate was accepted")
	}
	good := ca.chain(t, csr, alice, time.Hour)
	_, otherKey, _ := certs.NewCSR(alice)
	if _, err := certs.FromChain(alice, otherKey, good); err == nil {
		t.Error("a certificate for another key was accepted")
	}
	if _, err := certs.FromChain(alice, key, good[:1]); err == nil {
		t.Error("an answer without roots was accepted")
	}
	otherRoot := newAuthority(t).chain(t, csr, alice, time.Hour)[1]
	if _, err := certs.FromChain(alice, key, []string{good[0], otherRoot}); err == nil {
		t.Error("roots that did not sign it were accepted")
	}
	w, err := certs.FromChain(alice, key, []string{good[0], good[1] + otherRoot})
	if err != nil || len(w.RootCerts) != 2 {
		t.Errorf("a bundle of two roots: %v", err)
	}
}

// pair is two ends of a TCP connection on loopback: it buffers, so that an alert never blocks its sender.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if b, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if a, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// handshake returns what each side said; the server's error is read through a byte exchanged after the handshake.
func handshake(t *testing.T, server, client *tls.Config) (serverState tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := pair(t)
	deadline := time.Now().Add(30 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn := tls.Server(a, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			serverState = conn.ConnectionState()
			_, serverErr = conn.Write([]byte("x"))
		}
		a.Close()
	}()
	conn := tls.Client(b, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	b.Close()
	<-done
	return serverState, serverErr, clientErr
}

func TestHBONEHandshake(t *testing.T) {
	ca, otherCA := newAuthority(t), newAuthority(t)
	server, client := ca.issue(t, bob), ca.issue(t, alice)
	foreign := spiffe.ID{TrustDomain: "elsewhere", Namespace: "a", ServiceAccount: "alice"}
	serverConfig := func() *tls.Config {
		return certs.HBONEServerConfig(func() (*certs.Workload, error) { return server, nil })
	}
	state, serverErr, clientErr := handshake(t, serverConfig(), certs.HBONEClientConfig(client, []string{bob.String()}))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("server: %v, client: %v", serverErr, clientErr)
	}
	if id, ok := certs.PeerID(state); !ok || id != alice || state.Version != tls.VersionTLS13 || state.ServerName != "" {
		t.Errorf("peer %v, version %x, SNI %q", id, state.Version, state.ServerName)
	}

	change := func(base *tls.Config, edit func(*tls.Config)) *tls.Config {
		changed := base.Clone()
		edit(changed)
		return changed
	}
	toBob := certs.HBONEClientConfig(client, []string{bob.String()})
	for name, config := range map[string]*tls.Config{
		"server of another identity":      certs.HBONEClientConfig(client, []string{alice.String()}),
		"no expected identity":            certs.HBONEClientConfig(client, nil),
		"client of another root":          change(toBob, func(c *tls.Config) { c.Certificates = []tls.Certificate{otherCA.issue(t, alice).Certificate} }),
		"server of another root":          certs.HBONEClientConfig(otherCA.issue(t, alice), []string{bob.String()}),
		"client of another trust domain":  certs.HBONEClientConfig(ca.issue(t, foreign), []string{bob.String()}),
		"client without certificate":      change(toBob, func(c *tls.Config) { c.Certificates = nil }),
		"client without ALPN":             change(toBob, func(c *tls.Config) { c.NextProtos = nil; c.VerifyConnection = nil }),
		"client with TLS 1.2 at the most": change(toBob, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
	} {
		if _, serverErr, clientErr := handshake(t, serverConfig(), config); serverErr == nil && clientErr == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestParsePEMRefusesKeys(t *testing.T) {
	if _, err := certs.ParsePEM([]byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")); err == nil || !strings.Contains(err.Error(), "PRIVATE KEY") {
		t.Errorf("%v", err)
	}
}
