package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func (c edgeCA) list(until time.Time, revoked ...*x509.Certificate) []byte {
	c.t.Helper()
	text, err := c.Revoke(until, revoked...)
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// TestRevokedClients: who configures lists of revoked certificates wants each certificate to be on none, of a list that counts today.
func TestRevokedClients(t *testing.T) {
	ca, foreign := newEdgeCA(t), newEdgeCA(t)
	client, other := ca.named("alice.example.com").Leaf, ca.named("bob.example.com").Leaf
	now := time.Now()
	later, before := now.Add(time.Hour), now.Add(-time.Minute)
	for name, tt := range map[string]struct {
		lists [][]byte
		ok    bool
	}{
		"no lists":                       {nil, true},
		"a list with others":             {[][]byte{ca.list(later, other)}, true},
		"a list with it":                 {[][]byte{ca.list(later, other, client)}, false},
		"a list of another authority":    {[][]byte{foreign.list(later)}, false},
		"a list that has expired":        {[][]byte{ca.list(before, other)}, false},
		"a new list beside":              {[][]byte{ca.list(before, other), ca.list(later)}, true},
		"revoked by the one that is old": {[][]byte{ca.list(before, client), ca.list(later)}, false},
	} {
		authorities, err := l7.ParseAuthorities(ca.RootPEM(), bytes.Join(tt.lists, nil))
		if err != nil {
			t.Fatal(err)
		}
		err = verifyClient([]*x509.Certificate{client}, &l7.ServerTLS{Validates: true}, trust.Of(authorities, nil, false), now)
		if (err == nil) != tt.ok || trust.Refused(err) == tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// authoritiesWith are authorities by SDS with lists.
func (b *bed) authoritiesWith(trusted, lists []byte) *l7.Secret {
	encode := base64.StdEncoding.EncodeToString
	return compile(b.t, `{"name":"kubernetes://edge-cacert","validation_context":{"trusted_ca":{"inline_bytes":"`+encode(trusted)+`"},"crl":{"inline_bytes":"`+encode(lists)+`"}}}`,
		&tlsv3.Secret{}, l7.CompileSecret)
}

// attempt is a request of a client with a certificate, which takes up the sessions that it has.
func (b *bed) attempt(client tls.Certificate, sessions tls.ClientSessionCache) (got string, resumed bool, err error) {
	b.t.Helper()
	conn, _, err := b.secureDial(&tls.Config{
		NextProtos: []string{"http/1.1"}, ClientSessionCache: sessions,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
	})
	if err != nil {
		return "", false, err
	}
	got, err = ask(conn)
	return got, conn.ConnectionState().DidResume, err
}

func (b *bed) refusals(text string) bool {
	b.records.mu.Lock()
	defer b.records.mu.Unlock()
	for _, r := range b.records.ended {
		if r.Details == "tls_handshake" && strings.Contains(r.Termination, text) {
			return true
		}
	}
	return false
}

// TestListsAreReplacedWithoutRestart: a certificate that is revoked is refused from the next handshake on, resumed sessions too, with the
// reason in the log and counted; others go on.
func TestListsAreReplacedWithoutRestart(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	ca := newEdgeCA(t)
	own, ownKey := ca.issue("edge")
	alice, bob := ca.named("alice"), ca.named("bob")
	later := time.Now().Add(time.Hour)
	b.update(l7.Update{
		Listeners: map[string]*l7.Listener{"0.0.0.0_8443": compile(t, b.secureListener(bySDS+verifying, `,"require_client_certificate":true`), &listenerv3.Listener{}, l7.CompileListener)},
		Secrets:   map[string]*l7.Secret{"kubernetes://edge": b.secretOf(own, ownKey), "kubernetes://edge-cacert": b.authoritiesWith(ca.RootPEM(), ca.list(later))},
	})
	ofAlice, ofBob := tls.NewLRUClientSessionCache(4), tls.NewLRUClientSessionCache(4)
	for range 2 {
		for _, sessions := range []tls.ClientSessionCache{ofAlice, ofBob} {
			client := alice
			if sessions == ofBob {
				client = bob
			}
			if got, _, err := b.attempt(client, sessions); got != "200 hello" || err != nil {
				t.Fatal(got, err)
			}
		}
	}
	if _, resumed, err := b.attempt(alice, ofAlice); !resumed || err != nil {
		t.Fatalf("the session is not resumed: %v", err)
	}
	b.update(l7.Update{Secrets: map[string]*l7.Secret{"kubernetes://edge-cacert": b.authoritiesWith(ca.RootPEM(), ca.list(later, alice.Leaf))}})
	if got, _, err := b.attempt(alice, ofAlice); err == nil {
		t.Errorf("a client that is revoked got %s", got)
	}
	if got, _, err := b.attempt(bob, ofBob); got != "200 hello" || err != nil {
		t.Errorf("a client that is not: %s, %v", got, err)
	}
	until(t, "the failure is logged", func() bool {
		return b.refusals("certificate revoked: serial number " + alice.Leaf.SerialNumber.String())
	})
	until(t, "the failure is counted", func() bool { return b.server.Stats().Revoked > 0 })
}

// TestSessionsEndWithTheirLists: nothing changes but the time, so that sessions can be resumed; what is verified is verified anew.
func TestSessionsEndWithTheirLists(t *testing.T) {
	var offset atomic.Int64
	b := newBedOf(t, func(d *Deps) { d.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) } })
	b.apply(b.backend("reviews", say("hello")))
	ca := newEdgeCA(t)
	own, ownKey := ca.issue("edge")
	alice := ca.named("alice")
	b.update(l7.Update{
		Listeners: map[string]*l7.Listener{"0.0.0.0_8443": compile(t, b.secureListener(bySDS+verifying, `,"require_client_certificate":true`), &listenerv3.Listener{}, l7.CompileListener)},
		Secrets:   map[string]*l7.Secret{"kubernetes://edge": b.secretOf(own, ownKey), "kubernetes://edge-cacert": b.authoritiesWith(ca.RootPEM(), ca.list(time.Now().Add(time.Hour)))},
	})
	sessions := tls.NewLRUClientSessionCache(4)
	for range 2 {
		if got, _, err := b.attempt(alice, sessions); got != "200 hello" || err != nil {
			t.Fatal(got, err)
		}
	}
	offset.Store(int64(2 * time.Hour))
	if got, _, err := b.attempt(alice, sessions); err == nil {
		t.Errorf("with a list that has expired a session goes on: %s", got)
	}
	until(t, "the failure is logged", func() bool { return b.refusals("has expired") })
}

// TestListsInFiles: authorities by SDS, lists in a file, as istiod has it. The last good one stays in force.
func TestListsInFiles(t *testing.T) {
	var offset atomic.Int64
	b := newBedOf(t, func(d *Deps) { d.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) } })
	b.apply(b.backend("reviews", say("hello")))
	ca := newEdgeCA(t)
	own, ownKey := ca.issue("edge")
	alice, bob := ca.named("alice"), ca.named("bob")
	file := filepath.Join(t.TempDir(), "crl.pem")
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		offset.Add(int64(5 * time.Second)) // files are looked at once in a while
	}
	validation := strings.Replace(verifying, `"default_validation_context":{}`, `"default_validation_context":{"crl":{"filename":"`+file+`"}}`, 1)
	b.update(l7.Update{
		Listeners: map[string]*l7.Listener{"0.0.0.0_8443": compile(t, b.secureListener(bySDS+validation, `,"require_client_certificate":true`), &listenerv3.Listener{}, l7.CompileListener)},
		Secrets:   map[string]*l7.Secret{"kubernetes://edge": b.secretOf(own, ownKey), "kubernetes://edge-cacert": b.authorities(ca.RootPEM())},
	})
	want := func(when string, client tls.Certificate, ok bool) {
		t.Helper()
		if got, _, err := b.attempt(client, nil); (err == nil && got == "200 hello") != ok {
			t.Errorf("%s: %s, %v", when, got, err)
		}
	}
	want("without the file", bob, false)
	later := time.Now().Add(time.Hour)
	put(ca.list(later, alice.Leaf))
	want("revoked", alice, false)
	want("not revoked", bob, true)
	put([]byte("half a li"))
	want("revoked by the last good list", alice, false)
	want("not revoked by the last good list", bob, true)
	put(nil)
	want("revoked when the file is empty", alice, false)
	put(ca.list(later, alice.Leaf, bob.Leaf))
	want("revoked by the new list", bob, false)
}
