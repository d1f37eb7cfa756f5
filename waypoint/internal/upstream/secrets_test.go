package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func newAuthority(t *testing.T) *testkit.CA {
	t.Helper()
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *testkit.CA) tls.Certificate {
	t.Helper()
	issued, err := ca.Named("server.example")
	if err != nil {
		t.Fatal(err)
	}
	return issued
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
	trusted, err := l7.ParseAuthorities(ca.RootPEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := l7.ParseAuthorities(other.RootPEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	own := issue(t, ca)
	m := &Manager{}
	m.cfg.Store(l7.NewConfig().With(l7.Update{Secrets: map[string]*l7.Secret{
		"own": {Certificate: &own}, "ca": {Authorities: trusted}, "other": {Authorities: strange},
	}}))
	pool := x509.NewCertPool()
	pool.AddCert(ca.Root)
	server := &tls.Config{Certificates: []tls.Certificate{issue(t, ca)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: tls.VersionTLS12}
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
	good, revoked := issue(t, ca), issue(t, ca)
	crl, err := ca.Revoke(time.Now().Add(time.Hour), revoked.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	roots, list := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "crl.pem")
	for name, data := range map[string][]byte{roots: ca.RootPEM(), list: crl} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &Manager{}
	m.cfg.Store(l7.NewConfig())
	want := &l7.ClientTLS{CAFile: roots, Revocation: l7.Revocation{File: list}}
	if err := meet(t, m, want, &tls.Config{Certificates: []tls.Certificate{good}}); err != nil {
		t.Errorf("not revoked: %v", err)
	}
	if err := meet(t, m, want, &tls.Config{Certificates: []tls.Certificate{revoked}}); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked: %v", err)
	}
	if err := meet(t, m, &l7.ClientTLS{CAFile: roots, Revocation: l7.Revocation{File: filepath.Join(dir, "gone")}}, &tls.Config{Certificates: []tls.Certificate{good}}); err == nil {
		t.Error("a list that cannot be read is ignored")
	}
	// Lists are for authorities by SDS too, whose own go before.
	trusted, err := l7.ParseAuthorities(ca.RootPEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ca.Revoke(time.Now().Add(time.Hour), revoked.Leaf, good.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	stricter, err := l7.ParseAuthorities(ca.RootPEM(), all)
	if err != nil {
		t.Fatal(err)
	}
	m.cfg.Store(l7.NewConfig().With(l7.Update{Secrets: map[string]*l7.Secret{"ca": {Authorities: trusted}, "stricter": {Authorities: stricter}}}))
	for _, tt := range []struct {
		validation string
		server     tls.Certificate
		ok         bool
	}{{"ca", good, true}, {"ca", revoked, false}, {"stricter", good, false}} {
		err := meet(t, m, &l7.ClientTLS{Validation: tt.validation, Revocation: l7.Revocation{File: list}}, &tls.Config{Certificates: []tls.Certificate{tt.server}})
		if (err == nil) != tt.ok || err != nil && !trust.Refused(err) {
			t.Errorf("authorities %s: %v", tt.validation, err)
		}
	}
}
