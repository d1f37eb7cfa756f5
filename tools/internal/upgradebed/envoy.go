package upgradebed

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Foreign says which of the two pods has a real Envoy in the place of a node proxy of ours: a peer that is never replaced.
type Foreign int

// The places.
const (
	// Nobody is foreign.
	Nobody Foreign = iota
	// Client is Envoy in the client's pod: what the applications dial leaves it in tunnels (tunneling_config).
	Client
	// Server is Envoy in the server's pod: it ends the tunnels (connect_matcher, connect_config).
	Server
)

// is reports whether node i is the foreign one.
func (f Foreign) is(i int) bool { return int(f) == i+1 }

// envoyTLS is how Envoy makes and takes tunnels: TLS 1.3 alone, h2, both certificates, and the other pod's SPIFFE identity.
const envoyTLS = `        common_tls_context:
          alpn_protocols: [h2]
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates: [{certificate_chain: {filename: %[1]s/chain.pem}, private_key: {filename: %[1]s/key.pem}}]
          validation_context:
            trusted_ca: {filename: %[1]s/roots.pem}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "%[2]s"}}]
`

// envoyClient stands behind the redirection as a sidecar does: the original destination is the authority of the CONNECT.
const envoyClient = `static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 15001}}
    listener_filters:
    - name: original_dst
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: out
          cluster: tunnel
          tunneling_config: {hostname: "%%DOWNSTREAM_LOCAL_ADDRESS%%"}
  clusters:
  - name: tunnel
    connect_timeout: 30s
    upstream_bind_config:
      source_address: {address: 0.0.0.0, port_value: 0}
      socket_options: [{level: 1, name: 36, int_value: %[3]d, state: STATE_PREBIND}] # SO_MARK: not redirected
    load_assignment: {cluster_name: tunnel, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[4]s, port_value: 15008}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {allow_connect: true}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
` + envoyTLS

// envoyServer hands a tunnel on to the port that its authority names.
const envoyServer = `static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 15008}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          stream_idle_timeout: 0s
          http2_protocol_options: {allow_connect: true}
          upgrade_configs: [{upgrade_type: CONNECT}]
          route_config:
            virtual_hosts:
            - name: echo
              domains: ["%[4]s:%[5]s"]
              routes: [{match: {connect_matcher: {}}, route: {cluster: echo, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}]
            - name: stream
              domains: ["%[4]s:%[6]s"]
              routes: [{match: {connect_matcher: {}}, route: {cluster: stream, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}]
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
      transport_socket:
       name: tls
       typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        require_client_certificate: true
` + envoyTLS + `  clusters:
  - name: echo
    load_assignment: {cluster_name: echo, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[5]s}}}}]}]}
  - name: stream
    load_assignment: {cluster_name: stream, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[6]s}}}}]}]}
`

// envoy is the running foreign peer.
type envoy struct {
	cmd *exec.Cmd
	log *os.File
}

// startEnvoy returns when Envoy listens in its pod. What it logs goes to the bed's log.
func (b *bed) startEnvoy(ctx context.Context) (e *envoy, err error) {
	own, other, config, port := "client", "server", envoyClient, 15001
	if b.o.Foreign == Server {
		own, other, config, port = "server", "client", envoyServer, 15008
	}
	dir := filepath.Join(b.dir, "envoy")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	id := func(account string) spiffe.ID {
		return spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account}
	}
	w, err := b.plane.ca.Issue(ctx, id(own))
	if err != nil {
		return nil, err
	}
	if err := writePEM(dir, w); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "envoy.yaml")
	text := fmt.Sprintf(config, dir, id(other), proxyMark, serverIP, echoPort, streamPort)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	e = &envoy{cmd: exec.CommandContext(ctx, "ip", "netns", "exec", b.pods.names[b.o.Foreign-1],
		b.o.Envoy, "-c", file, "--disable-hot-restart", "--concurrency", "2", "-l", "warn")}
	if e.log, err = os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	e.cmd.Stderr = e.log
	if err := e.cmd.Start(); err != nil {
		e.log.Close()
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	pod := b.pods.client
	if b.o.Foreign == Server {
		pod = b.pods.server
	}
	for deadline := time.Now().Add(readyTime); ; {
		conn, err := pod.Dial(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), netip.Addr{})
		if err == nil {
			conn.Close()
			return e, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			e.kill()
			return nil, fmt.Errorf("a real Envoy does not listen: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func writePEM(dir string, w *certs.Workload) error {
	key, err := x509.MarshalPKCS8PrivateKey(w.Certificate.PrivateKey)
	if err != nil {
		return err
	}
	var chain, roots []byte
	for _, der := range w.Certificate.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	for _, cert := range w.RootCerts {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "chain.pem"), chain, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
		os.WriteFile(filepath.Join(dir, "roots.pem"), roots, 0o600),
	)
}

func (e *envoy) kill() {
	_ = e.cmd.Process.Kill() // it may have ended
	_ = e.cmd.Wait()
	e.log.Close()
}
