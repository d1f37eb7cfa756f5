package hbone

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// envoyConfig is a real Envoy as both ends of tunnels: what comes to the first port leaves in a tunnel to a server of ours, what
// comes in a tunnel to the second goes on to an application.
const envoyConfig = `
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 127.0.0.1, port_value: %[1]s}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: out
          cluster: tunnel
          tunneling_config: {hostname: "a:1"}
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: %[2]s}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context: &tls
            alpn_protocols: [h2]
            tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
            tls_certificates: [{certificate_chain: {filename: %[5]s}, private_key: {filename: %[6]s}}]
            validation_context: {trusted_ca: {filename: %[7]s}}
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http2_protocol_options: {allow_connect: true}
          upgrade_configs: [{upgrade_type: CONNECT}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {connect_matcher: {}}
                route: {cluster: app, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: tunnel
    load_assignment: {cluster_name: tunnel, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[3]d}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {allow_connect: true}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: *tls
  - name: app
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[4]d}}}}]}]}
`

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// listen accepts connections until the test ends.
func listen(t *testing.T, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return l
}

// files are what a foreign program is told of a workload, by name; both is the chain with the key behind it.
type files struct{ chain, key, both, roots string }

func pemFiles(t *testing.T, w *certs.Workload) files {
	t.Helper()
	dir := t.TempDir()
	secret, err := x509.MarshalPKCS8PrivateKey(w.Certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain, roots []byte
	for _, der := range w.Certificate.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	for _, cert := range w.RootCerts {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return files{file("chain.pem", chain), file("key.pem", key), file("both.pem", slices.Concat(chain, key)), file("roots.pem", roots)}
}

// startEnvoy runs the real Envoy as the workload w.
func startEnvoy(t *testing.T, w *certs.Workload, tunnels, app int) (out, in string) {
	t.Helper()
	binary, err := filepath.Abs("../../out/envoy/envoy")
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		t.Fatalf("the real Envoy is missing: run `make envoy` (%v)", err)
	}
	files := pemFiles(t, w)
	out, in = tcp.Free(t), tcp.Free(t)
	_, outPort, _ := net.SplitHostPort(out)
	_, inPort, _ := net.SplitHostPort(in)
	config := filepath.Join(filepath.Dir(files.chain), "envoy.yaml")
	text := fmt.Appendf(nil, envoyConfig, outPort, inPort, tunnels, app, files.chain, files.key, files.roots)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(binary, "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "warn")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Envoy:\n%s", log.String())
		}
	})
	for _, addr := range []string{out, in} {
		wait.Until(t, 2*time.Minute, "Envoy listens on "+addr, func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}, nil)
	}
	return out, in
}

// TestEnvoy has the real Envoy as the peer, as a client and as a server.
func TestEnvoy(t *testing.T) {
	if current.plain {
		return // there is no such peer
	}
	ca, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(account string) *certs.Workload {
		w, err := ca.Issue(t.Context(), spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	us, envoy := issue("us"), issue("envoy")
	tunnels := listen(t, func(nc net.Conn) {
		defer nc.Close()
		secured, err := current.server.Server(deadline(t), nc, certs.HBONEServerConfig(func() (*certs.Workload, error) { return us, nil }))
		if err == nil {
			_ = ServeConn(context.Background(), secured, handlerFunc(echo), ServerConfig{}) // Envoy sees it end
		}
	})
	app := listen(t, func(nc net.Conn) {
		defer nc.Close()
		_, _ = io.Copy(nc, nc)
		_ = nc.(*net.TCPConn).CloseWrite()
	})
	out, in := startEnvoy(t, envoy, port(tunnels), port(app))

	nc, err := net.Dial("tcp", in)
	if err != nil {
		t.Fatal(err)
	}
	secured, err := current.client.Client(deadline(t), nc, certs.HBONEClientConfig(us, []string{envoy.ID.String()}))
	if err != nil {
		t.Fatal(err)
	}
	cc, err := NewClientConn(secured, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	var group sync.WaitGroup
	errs := make(chan error, 32)
	for range 8 {
		group.Go(func() {
			s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
			if err == nil {
				err = exchange(s, 2<<20)
				s.Close()
			}
			if err != nil {
				errs <- fmt.Errorf("to Envoy: %w", err)
			}
		})
		group.Go(func() {
			conn, err := net.Dial("tcp", out)
			if err == nil {
				err = exchange(conn.(*net.TCPConn), 2<<20)
				conn.Close()
			}
			if err != nil {
				errs <- fmt.Errorf("from Envoy: %w", err)
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if errors.Is(cc.c.failure(), io.EOF) {
		t.Error("Envoy ended the connection")
	}
}
