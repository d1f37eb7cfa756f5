package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

// realEnvoy is the path of the binary that everything is judged by.
func realEnvoy(t *testing.T) string {
	t.Helper()
	script, err := filepath.Abs("../../tools/envoy.sh")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), script).Output()
	if err != nil {
		t.Fatalf("fetch Envoy: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// secrets is the agent beside a proxy, as far as Envoy can tell.
type secrets struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	of map[string]*tlsv3.Secret
}

func (s *secrets) StreamSecrets(g secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for n := 1; ; n++ {
		r, err := g.Recv()
		if err != nil {
			return nil
		}
		if r.GetResponseNonce() != "" {
			continue
		}
		response := &discovery.DiscoveryResponse{TypeUrl: r.GetTypeUrl(), Nonce: fmt.Sprint(n), VersionInfo: "1"}
		for _, name := range r.GetResourceNames() {
			packed, err := anypb.New(s.of[name])
			if err != nil {
				return err
			}
			response.Resources = append(response.Resources, packed)
		}
		if err := g.Send(response); err != nil {
			return err
		}
	}
}

func newSecrets(t *testing.T) *secrets {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/default/sa/waypoint"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	inline := func(kind string, der []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})}}
	}
	cert := inline("CERTIFICATE", der)
	return &secrets{of: map[string]*tlsv3.Secret{
		"default": {Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: cert, PrivateKey: inline("PRIVATE KEY", keyDER)}}},
		"ROOTCA":  {Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: cert}}},
	}}
}

// unixListener listens until the test ends.
func unixListener(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// bridge carries connections of a Unix socket to an address: Envoy has a network of its own, in which there is nothing else.
func bridge(t *testing.T, path, addr string) {
	t.Helper()
	l := unixListener(t, path)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				continue
			}
			t.Cleanup(func() { in.Close(); out.Close() })
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
}

const bootstrap = `{
"node": {"id": %q, "cluster": "test", "metadata": {"NAMESPACE": %q, "LABELS": %s}},
"bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}],
"admin": {"address": {"pipe": {"path": %q}}},
"dynamic_resources": {
  "ads_config": {"api_type": %q, "transport_api_version": "V3", "set_node_on_first_message_only": true, "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
  "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
  "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}},
"static_resources": {"clusters": [%s, %s]}}`

func unixCluster(name, path string) string {
	return fmt.Sprintf(`{"name": %q, "type": "STATIC", "connect_timeout": "5s",
"load_assignment": {"cluster_name": %q, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": %q}}}}]}]},
"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
  "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}}`, name, name, path)
}

// envoy is a running Envoy.
type envoy struct {
	t     *testing.T
	admin *http.Client
	log   string
}

// proxy says what an Envoy claims to be.
type proxy struct{ id, namespace, labels, api string }

func startEnvoy(t *testing.T, pilot string, p proxy) *envoy {
	t.Helper()
	dir := t.TempDir()
	agent := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(agent, newSecrets(t))
	l := unixListener(t, filepath.Join(dir, "sds"))
	go func() { _ = agent.Serve(l) }()
	t.Cleanup(agent.Stop)
	bridge(t, filepath.Join(dir, "xds"), pilot)
	boot := fmt.Sprintf(bootstrap, p.id, p.namespace, p.labels, filepath.Join(dir, "admin"), p.api,
		unixCluster("xds-grpc", filepath.Join(dir, "xds")), unixCluster("sds-grpc", filepath.Join(dir, "sds")))
	write(t, dir, "boot.json", boot)
	e := &envoy{t: t, log: filepath.Join(dir, "log")}
	cmd := exec.Command(realEnvoy(t), "-c", filepath.Join(dir, "boot.json"), "--disable-hot-restart", "--concurrency", "1", "--log-path", e.log, "--log-level", "warning")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		// The kernel sends the death signal when the thread that started the process ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed in the end
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	e.admin = &http.Client{Transport: transport, Timeout: patience}
	return e
}

func (e *envoy) get(path string) string {
	r, err := e.admin.Get("http://envoy" + path)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return string(body)
}

// until polls a page.
func (e *envoy) until(path, what string, ok func(body string) bool) string {
	e.t.Helper()
	body := ""
	wait.Until(e.t, 2*patience, what, func() bool {
		body = e.get(path)
		return ok(body)
	}, func() string {
		log, _ := os.ReadFile(e.log)
		return fmt.Sprintf("%s\n%s", body, log)
	})
	return body
}

// stat is a counter's value; -1 when it does not exist.
func stat(body, name string) int {
	for line := range strings.SplitSeq(body, "\n") {
		if k, v, ok := strings.Cut(line, ": "); ok && k == name {
			n := -1
			if _, err := fmt.Sscan(v, &n); err == nil {
				return n
			}
		}
	}
	return -1
}

// accepted waits until Envoy serves, and checks that it has refused nothing.
func (e *envoy) accepted() string {
	e.t.Helper()
	e.until("/ready", "Envoy is ready", func(b string) bool { return strings.HasPrefix(b, "LIVE") })
	stats := e.get("/stats")
	for line := range strings.SplitSeq(stats, "\n") {
		k, v, _ := strings.Cut(line, ": ")
		if strings.HasSuffix(k, "update_rejected") && v != "0" || k == "listener_manager.listener_create_failure" && v != "0" {
			log, _ := os.ReadFile(e.log)
			e.t.Errorf("%s\n%s", line, log)
		}
	}
	return stats
}

func TestEnvoyAsWaypoint(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "mesh.yaml", waypointMesh)
			addr := start(t, dir)
			e := startEnvoy(t, addr.GRPC.String(), proxy{
				"waypoint~10.244.1.9~reviews-wp-1.default~default.svc.cluster.local", "default", `{"gateway.networking.k8s.io/gateway-name": "reviews-wp"}`, api,
			})
			e.accepted()
			e.until("/clusters", "the pods are there", func(b string) bool {
				return strings.Contains(b, "inbound-vip|9080|http/v1|reviews.default.svc.cluster.local::envoy://connect_originate/10.244.1.5:9080::health_flags::healthy") &&
					strings.Contains(b, "outbound|9080||ratings.default.svc.cluster.local::10.244.1.7:9080::health_flags::healthy")
			})
			listeners := e.until("/listeners", "all listeners are up", func(b string) bool { return strings.Count(b, "\n") == 3 })
			for _, name := range []string{"connect_terminate", "main_internal", "connect_originate"} {
				if !strings.Contains(listeners, name+"::") {
					t.Errorf("no %s in %s", name, listeners)
				}
			}
			routes := e.until("/config_dump?resource=dynamic_route_configs", "the routes are there", func(b string) bool { return strings.Contains(b, "inbound-vip|9080|http|reviews") })
			if strings.Contains(routes, "|ratings.default.svc.cluster.local\",\n    \"virtual_hosts") {
				t.Errorf("routes of a service that is not served here:\n%s", routes)
			}
			updates := func(what string) int { return stat(e.get("/stats"), what) }
			lds := updates("listener_manager.lds.update_success")
			write(t, dir, "mesh.yaml", strings.Replace(waypointMesh, "weight: 90", "weight: 91", 1))
			e.until("/config_dump?resource=dynamic_route_configs", "the new weight", func(b string) bool { return strings.Contains(b, `"weight": 91`) })
			if n := updates("listener_manager.lds.update_success"); n != lds {
				t.Errorf("a weight updates listeners: %d, before %d", n, lds)
			}
			// A new subset and the route to it at once, and another setting of clusters that are in use: nothing stays behind, warming.
			changed := strings.NewReplacer("subset: v2}, weight: 10", "subset: v3}, weight: 10", "subsets:\n", "subsets:\n  - {name: v3, labels: {version: v2}}\n", "maxConnections: 10", "maxConnections: 11").Replace(waypointMesh)
			write(t, dir, "mesh.yaml", changed)
			e.until("/config_dump?resource=dynamic_route_configs", "the new subset", func(b string) bool { return strings.Contains(b, `http/v3|reviews`) })
			e.until("/clusters", "its pods", func(b string) bool {
				return strings.Contains(b, "inbound-vip|9080|http/v3|reviews.default.svc.cluster.local::envoy://connect_originate/10.244.1.6:9080::health_flags::healthy") &&
					strings.Contains(b, "inbound-vip|9080|http|reviews.default.svc.cluster.local::default_priority::max_connections::11")
			})
			e.until("/stats", "no cluster is warming", func(b string) bool { return stat(b, "cluster_manager.warming_clusters") == 0 })
			e.accepted()
			var sync []struct {
				Proxy     string
				Resources map[string]struct{ Sent, Acked string }
			}
			until(t, "pilot knows that it is in sync", func() bool {
				sync = nil
				r, err := http.Get("http://" + addr.Monitoring.String() + "/debug/syncz")
				if err != nil {
					return false
				}
				defer r.Body.Close()
				if json.NewDecoder(r.Body).Decode(&sync) != nil || len(sync) != 1 || len(sync[0].Resources) != 4 {
					return false
				}
				for _, s := range sync[0].Resources {
					if s.Sent != s.Acked {
						return false
					}
				}
				return true
			})
			sameConfiguration(t, addr, e, "reviews-wp-1.default")
		})
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, 2*patience, what, ok, nil)
}
