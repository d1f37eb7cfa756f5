package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// edgeCA signs certificates of servers and clients at the edge.
type edgeCA struct {
	*testkit.CA
	t *testing.T
}

func newEdgeCA(t *testing.T) edgeCA {
	t.Helper()
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return edgeCA{ca, t}
}

func (c edgeCA) named(name string) tls.Certificate {
	c.t.Helper()
	issued, err := c.Named(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return issued
}

// issue returns a certificate and its key in PEM.
func (c edgeCA) issue(name string) (certificate, key []byte) {
	c.t.Helper()
	certificate, key, err := testkit.KeyPair(c.named(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return certificate, key
}

// secureListener ends TLS with a certificate by SDS, or in files.
func (b *bed) secureListener(certificates, more string) string {
	return `{"name":"0.0.0.0_8443","address":{"socket_address":{"address":"127.0.0.1","port_value":0}},
"listener_filters":[{"name":"envoy.filters.listener.tls_inspector","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
"filter_chains":[{"filter_chain_match":{"server_names":["edge.example.com"]},"filters":[` + b.manager("outbound_0.0.0.0_8443") + `],
"transport_socket":{"name":"envoy.transport_sockets.tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
"common_tls_context":{"alpn_protocols":["h2","http/1.1"],` + certificates + `}` + more + `}}}]}`
}

const bySDS = `"tls_certificate_sds_secret_configs":[{"name":"kubernetes://edge","sds_config":{"ads":{},"resource_api_version":"V3"}}]`

const verifying = `,"combined_validation_context":{"default_validation_context":{},
"validation_context_sds_secret_config":{"name":"kubernetes://edge-cacert","sds_config":{"ads":{},"resource_api_version":"V3"}}}`

func (b *bed) secretOf(certificate, key []byte) *l7.Secret {
	encode := base64.StdEncoding.EncodeToString
	return compile(b.t, `{"name":"kubernetes://edge","tls_certificate":{"certificate_chain":{"inline_bytes":"`+encode(certificate)+`"},"private_key":{"inline_bytes":"`+encode(key)+`"}}}`,
		&tlsv3.Secret{}, l7.CompileSecret)
}

func (b *bed) authorities(trusted []byte) *l7.Secret {
	return compile(b.t, `{"name":"kubernetes://edge-cacert","validation_context":{"trusted_ca":{"inline_bytes":"`+base64.StdEncoding.EncodeToString(trusted)+`"}}}`,
		&tlsv3.Secret{}, l7.CompileSecret)
}

func (b *bed) update(u l7.Update) {
	b.t.Helper()
	b.cfg = b.cfg.With(u)
	if err := b.server.SetConfig(b.t.Context(), b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

// secureDial connects, and returns the name in the server's certificate.
func (b *bed) secureDial(config *tls.Config) (*tls.Conn, string, error) {
	b.t.Helper()
	raw, err := (&net.Dialer{}).DialContext(b.t.Context(), "tcp", b.server.Address("0.0.0.0_8443").String())
	if err != nil {
		b.t.Fatal(err)
	}
	config.ServerName, config.InsecureSkipVerify = "edge.example.com", true
	conn := tls.Client(raw, config)
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, "", err
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn, conn.ConnectionState().PeerCertificates[0].DNSNames[0], nil
}

// ask sends a request over a connection that stays open.
func ask(conn net.Conn) (string, error) {
	if _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: edge.example.com\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", string(text)), err
}

func TestCertificatesAreReplacedWithoutClosingConnections(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	ca := newEdgeCA(t)
	b.update(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8443": compile(t, b.secureListener(bySDS, ""), &listenerv3.Listener{}, l7.CompileListener)}})
	if _, _, err := b.secureDial(&tls.Config{}); err == nil {
		t.Fatal("there is a handshake without a certificate")
	}
	first, firstKey := ca.issue("first")
	b.update(l7.Update{Secrets: map[string]*l7.Secret{"kubernetes://edge": b.secretOf(first, firstKey)}})
	sessions := tls.NewLRUClientSessionCache(4)
	old, name, err := b.secureDial(&tls.Config{NextProtos: []string{"http/1.1"}, ClientSessionCache: sessions})
	if err != nil || name != "first" {
		t.Fatal(name, err)
	}
	if got, err := ask(old); got != "200 hello" || err != nil {
		t.Fatal(got, err)
	}
	again, _, err := b.secureDial(&tls.Config{NextProtos: []string{"http/1.1"}, ClientSessionCache: sessions})
	if err != nil || !again.ConnectionState().DidResume {
		t.Errorf("the session is not resumed: %v", err)
	}
	second, secondKey := ca.issue("second")
	b.update(l7.Update{Secrets: map[string]*l7.Secret{"kubernetes://edge": b.secretOf(second, secondKey)}})
	if _, name, err := b.secureDial(&tls.Config{}); err != nil || name != "second" {
		t.Errorf("after the rotation: %s, %v", name, err)
	}
	if got, err := ask(old); got != "200 hello" || err != nil {
		t.Errorf("the connection from before the rotation: %s, %v", got, err)
	}
}

func TestCertificatesInFilesAreReadAgain(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	ca, dir := newEdgeCA(t), t.TempDir()
	put := func(name string, at time.Time) {
		certificate, key := ca.issue(name)
		for file, text := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("first", time.Now().Add(-time.Minute))
	files := `"tls_certificates":[{"certificate_chain":{"filename":"` + dir + `/tls.crt"},"private_key":{"filename":"` + dir + `/tls.key"}}]`
	b.update(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8443": compile(t, b.secureListener(files, ""), &listenerv3.Listener{}, l7.CompileListener)}})
	if _, name, err := b.secureDial(&tls.Config{}); err != nil || name != "first" {
		t.Fatal(name, err)
	}
	put("second", time.Now())
	until(t, "the new files are presented", func() bool {
		_, name, err := b.secureDial(&tls.Config{})
		return err == nil && name == "second"
	})
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, name, err := b.secureDial(&tls.Config{}); err != nil || name != "second" {
		t.Errorf("with half a file: %s, %v", name, err)
	}
}

func TestAuthoritiesOfClientsHoldForResumedSessions(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	ca, other := newEdgeCA(t), newEdgeCA(t)
	own, ownKey := ca.issue("edge")
	pair := ca.named("alice")
	b.update(l7.Update{
		Listeners: map[string]*l7.Listener{"0.0.0.0_8443": compile(t, b.secureListener(bySDS+verifying, `,"require_client_certificate":true`), &listenerv3.Listener{}, l7.CompileListener)},
		Secrets:   map[string]*l7.Secret{"kubernetes://edge": b.secretOf(own, ownKey), "kubernetes://edge-cacert": b.authorities(ca.RootPEM())},
	})
	sessions := tls.NewLRUClientSessionCache(4)
	attempt := func() (string, error) {
		conn, _, err := b.secureDial(&tls.Config{
			NextProtos: []string{"http/1.1"}, ClientSessionCache: sessions,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		})
		if err != nil {
			return "", err
		}
		return ask(conn)
	}
	for range 2 {
		if got, err := attempt(); got != "200 hello" || err != nil {
			t.Fatal(got, err)
		}
	}
	b.update(l7.Update{Secrets: map[string]*l7.Secret{"kubernetes://edge-cacert": b.authorities(other.RootPEM())}})
	if got, err := attempt(); err == nil {
		t.Errorf("a client of an authority that is not trusted any more got %s", got)
	}
	var reason string
	until(t, "the failure is logged", func() bool {
		b.records.mu.Lock()
		defer b.records.mu.Unlock()
		for _, r := range b.records.ended {
			if r.Details == "tls_handshake" {
				reason = r.Termination
			}
		}
		return reason != ""
	})
	if !strings.Contains(reason, "the client's certificate") {
		t.Errorf("the reason is %q", reason)
	}
}
