package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// meshTLS is mutual TLS of the mesh, toward endpoints that say so.
const meshTLS = `{"name":"tlsMode-istio","match":{"tlsMode":"istio"},"transport_socket":{"name":"envoy.transport_sockets.tls","typed_config":{
"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext","sni":"outbound_.9080_._.reviews.default.svc.cluster.local",
"common_tls_context":{"alpn_protocols":["istio"],
"tls_certificate_sds_secret_configs":[{"name":"default","sds_config":{"ads":{},"resource_api_version":"V3"}}],
"combined_validation_context":{"default_validation_context":{"match_typed_subject_alt_names":[
 {"san_type":"URI","matcher":{"exact":"spiffe://cluster.local/ns/default/sa/reviews"}},{"san_type":"URI","matcher":{"exact":"spiffe://cluster.local/ns/default/sa/other"}}]},
"validation_context_sds_secret_config":{"name":"ROOTCA","sds_config":{"ads":{},"resource_api_version":"V3"}}}}}}},`

const localEndpoints = `"local_endpoints":"allow"`

// sidecar serves at ip:9080 with a proxy beside it, which takes mutual TLS, and answers with the server name that was asked for and
// the identity of the client.
func (b *bed) sidecar(account string) string {
	b.t.Helper()
	own := b.identity(account)
	address := nextIP() + ":9080"
	l, err := net.Listen("tcp4", address)
	if err != nil {
		b.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	for _, c := range own.RootCerts {
		roots.AddCert(c)
	}
	server := secureServer(func(w http.ResponseWriter, state tls.ConnectionState, _ *http.Request) {
		fmt.Fprint(w, state.ServerName, " ", state.NegotiatedProtocol, " ", state.PeerCertificates[0].URIs[0])
	})
	go func() {
		_ = server.Serve(hiding{tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{own.Certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, NextProtos: []string{"istio"},
		})})
	}()
	b.t.Cleanup(func() { server.Close() })
	return address
}

// hidden is TLS that net/http does not know of: it would not serve a protocol that it does not know.
type hidden struct{ net.Conn }

// hiding hides what it accepts.
type hiding struct{ net.Listener }

func (h hiding) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hidden{c}, nil
}

type hiddenKey struct{}

// secureServer serves hidden TLS.
func secureServer(h func(http.ResponseWriter, tls.ConnectionState, *http.Request)) *http.Server {
	return &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, hiddenKey{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(hiddenKey{}).(hidden).Conn
			if e, ok := c.(*ending); ok {
				c = e.Conn
			}
			h(w, c.(*tls.Conn).ConnectionState(), r)
		}),
	}
}

// direct makes an endpoint without tunnel the only one.
func (b *bed) direct(address, metadata string) {
	b.t.Helper()
	host, port, _ := net.SplitHostPort(address)
	b.cfg = b.cfg.With(l7.Update{Endpoints: map[string]*l7.Endpoints{service: compile(b.t, `{"cluster_name":"`+service+`","endpoints":[{"lb_endpoints":[{
"endpoint":{"address":{"socket_address":{"address":"`+host+`","port_value":`+port+`}}},"metadata":{"filter_metadata":{`+metadata+`}}}]}]}`,
		&endpointv3.ClusterLoadAssignment{}, l7.CompileEndpoints)}})
	if err := b.server.SetConfig(b.t.Context(), b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

func TestEndpointsWithASidecar(t *testing.T) {
	const known = `"envoy.transport_socket_match":{"tlsMode":"istio"},"isthmus.mesh":{"identity":"spiffe://cluster.local/ns/default/sa/reviews"}`
	for _, test := range []struct{ name, account, own, want, failure string }{
		{"the endpoint itself", "reviews", localEndpoints, "outbound_.9080_._.reviews.default.svc.cluster.local istio spiffe://cluster.local/ns/default/sa/waypoint", ""},
		{"another endpoint of the cluster", "other", localEndpoints, "", "peer_identity"},
		{"another endpoint, where that is allowed", "other", localEndpoints + `,"endpoint_identity":"trust-domain"`, "outbound_.9080_._.reviews.default.svc.cluster.local istio spiffe://cluster.local/ns/default/sa/waypoint", ""},
		{"somebody else", "stranger", localEndpoints + `,"endpoint_identity":"trust-domain"`, "", "peer_identity"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t)
			b.sockets, b.own = meshTLS, test.own
			address := b.sidecar(test.account)
			b.apply()
			b.direct(address, known)
			status, body := get(t, b.client("productpage", false), "/")
			r := b.records.last(t, 1)
			if test.want != "" && (status != 200 || body != test.want) || test.want == "" && (status != 503 || !strings.Contains(r.Failure, test.failure)) {
				t.Errorf("%d %q, %+v", status, body, r)
			}
		})
	}
}

func TestLocalEndpointsAreRefused(t *testing.T) {
	b := newBed(t)
	server := &http.Server{Handler: say("the admin port")}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	b.apply()
	b.direct(l.Addr().String(), "")
	c := b.client("productpage", false)
	if status, body := get(t, c, "/"); status != 503 || strings.Contains(body, "admin") {
		t.Errorf("%d %q", status, body)
	}
	if r := b.records.last(t, 1); !strings.Contains(r.Failure, "ISTHMUS_LOCAL_ENDPOINTS") || r.Flags != "UF" {
		t.Errorf("%+v", r)
	}
	b.own = localEndpoints
	b.apply()
	b.direct(l.Addr().String(), "")
	if status, body := get(t, c, "/"); status != 200 || body != "the admin port" {
		t.Errorf("%d %q, though it is allowed", status, body)
	}
}

// TestTLSInsideOfTheTunnel is TLS that a DestinationRule asks for, toward an endpoint that is reached by HBONE.
func TestTLSInsideOfTheTunnel(t *testing.T) {
	b := newBed(t)
	own := b.identity("application")
	dir := t.TempDir()
	root := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.ca.Root.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	server := secureServer(func(w http.ResponseWriter, state tls.ConnectionState, r *http.Request) {
		fmt.Fprint(w, r.Proto, " for ", state.ServerName)
	})
	pod := b.rawBackend("reviews", func(c net.Conn) {
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{own.Certificate}, NextProtos: []string{"http/1.1"}})
		l := &single{conn: make(chan net.Conn, 1), ended: make(chan struct{})}
		l.conn <- hidden{&ending{Conn: secured, ended: l.ended}}
		_ = server.Serve(l)
	})
	tlsTo := func(san string) string {
		return `{"name":"hbone-tls","match":{"tunnel":"h2"},"transport_socket":{"name":"envoy.transport_sockets.internal_upstream","typed_config":{
"@type":"type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
"transport_socket":{"name":"envoy.transport_sockets.tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
"sni":"app.example.com","common_tls_context":{"alpn_protocols":["http/1.1"],"validation_context":{"trusted_ca":{"filename":"` + root + `"},
"match_typed_subject_alt_names":[{"san_type":"URI","matcher":{"exact":"` + san + `"}}]}}}}}}},`
	}
	b.sockets = tlsTo("spiffe://cluster.local/ns/default/sa/application")
	b.apply(pod)
	c := b.client("productpage", false)
	for range 3 {
		if status, body := get(t, c, "/"); status != 200 || body != "HTTP/1.1 for app.example.com" {
			t.Fatalf("%d %q, %+v", status, body, b.records.last(t, 1))
		}
	}
	if pod.tunnels.Load() != 1 {
		t.Errorf("%d tunnels for three requests", pod.tunnels.Load())
	}
	b.sockets = tlsTo("spiffe://cluster.local/ns/default/sa/another")
	b.apply(pod)
	if status, _ := get(t, c, "/"); status != 503 {
		t.Errorf("%d from a server that is not the one", status)
	}
	if r := b.records.last(t, 4); !strings.Contains(r.Failure, "TLS_error") {
		t.Errorf("%+v", r)
	}
	server.Close()
}

// single is a listener of one connection.
type single struct {
	conn  chan net.Conn
	ended chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	select {
	case c := <-s.conn:
		return c, nil
	case <-s.ended:
		return nil, net.ErrClosed
	}
}
func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return &net.TCPAddr{} }
