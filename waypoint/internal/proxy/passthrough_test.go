package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3" // named by the fixture

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// passthrough is a gateway's listener that sends TLS connections on by their server name.
const passthrough = `{"name":"0.0.0.0_8443","address":{"socket_address":{"address":"127.0.0.1","port_value":0}},
"listener_filters":[{"name":"envoy.filters.listener.tls_inspector","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
"filter_chains":[{"name":"sni","filter_chain_match":{"server_names":["*.example.com"],"transport_protocol":"tls"},
 "filters":[{"name":"envoy.filters.network.tcp_proxy","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
 "stat_prefix":"sni","cluster":"` + service + `"}}]}]}`

func TestTLSPassthrough(t *testing.T) {
	b := newBed(t)
	certificate := b.identity("app").Certificate
	pod := b.rawBackend("reviews", func(c net.Conn) {
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})
		_, _ = io.Copy(secured, secured)
		secured.Close()
	})
	b.apply(pod)
	b.cfg = b.cfg.With(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8443": compile(t, passthrough, &listenerv3.Listener{}, l7.CompileListener)}})
	if err := b.server.SetConfig(t.Context(), b.cfg); err != nil {
		t.Fatal(err)
	}
	address := b.server.Address("0.0.0.0_8443").String()
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: "shop.example.com", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	payload := bytes.Repeat([]byte("x"), 100<<10)
	go func() {
		_, _ = conn.Write(payload)
		_ = conn.CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	conn.Close()
	b.records.last(t, 1)
	if _, err := tls.Dial("tcp", address, &tls.Config{ServerName: "other.test", InsecureSkipVerify: true}); err == nil {
		t.Error("a name that no chain has was let through")
	}
	b.records.last(t, 2)
	plain, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_, _ = io.WriteString(plain, "GET / HTTP/1.1\r\n\r\n")
	if rest, _ := io.ReadAll(plain); len(rest) > 0 {
		t.Errorf("%q", rest)
	}
	if r := b.records.last(t, 3); r.Flags != "NR" {
		t.Errorf("%+v", r)
	}
}

func TestPeersWithoutACertificateAreRefused(t *testing.T) {
	b := newBed(t)
	b.apply()
	conn, err := net.Dial("tcp", b.server.Address("connect_terminate").String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// No client certificate.
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	if secured.Handshake() == nil {
		if _, err := secured.Read(make([]byte, 1)); err == nil {
			t.Error("a peer without an identity was let in")
		}
	}
	if r := b.records.last(t, 1); r.Kind != KindTunnel || r.Details != "tls_handshake" || b.server.Stats().HandshakeErrors != 1 {
		t.Errorf("%+v", r)
	}
}
