package agent_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/controlplane"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/agent"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

func identity() spiffe.ID {
	return spiffe.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "waypoint"}
}

// source is a certificate that is renewed at will.
type source struct {
	ca *testkit.CA

	mu      sync.Mutex // guards current
	current *certs.Workload
}

func newSource(t *testing.T) *source {
	t.Helper()
	authority, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	s := &source{ca: authority}
	s.renew(t)
	return s
}

func (s *source) renew(t *testing.T) *certs.Workload {
	t.Helper()
	w, err := s.ca.Issue(t.Context(), identity())
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = w
	return w
}

func (s *source) get(context.Context) (*certs.Workload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil, errors.New("no certificate")
	}
	return s.current, nil
}

// sockets opens both sockets in a directory with a short path.
func sockets(t *testing.T, s *source, upstream controlplane.Upstream) *agent.Sockets {
	t.Helper()
	dir, err := os.MkdirTemp("", "wp") //nolint:usetesting // the path of a Unix socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	opened, err := agent.OpenSockets(t.Context(), dir, upstream, s.get, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	return opened
}

func dial(t *testing.T, path string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// usable checks that an identity and its roots work for TLS.
func usable(t *testing.T, w *certs.Workload, identity, roots *tlsv3.Secret) {
	t.Helper()
	pair, err := tls.X509KeyPair(identity.GetTlsCertificate().GetCertificateChain().GetInlineBytes(), identity.GetTlsCertificate().GetPrivateKey().GetInlineBytes())
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err != nil || !leaf.Equal(w.Certificate.Leaf) {
		t.Errorf("not the certificate in force: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots.GetValidationContext().GetTrustedCa().GetInlineBytes()) {
		t.Error("no roots")
	}
	if _, err := w.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
}

func TestStreamSecrets(t *testing.T) {
	s := newSource(t)
	stream, err := secretv3.NewSecretDiscoveryServiceClient(dial(t, sockets(t, s, controlplane.Upstream{}).SDS)).StreamSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	receive := func() (map[string]*tlsv3.Secret, *discoveryv3.DiscoveryResponse) {
		t.Helper()
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]*tlsv3.Secret{}
		for _, packed := range response.GetResources() {
			one := &tlsv3.Secret{}
			if err := packed.UnmarshalTo(one); err != nil {
				t.Fatal(err)
			}
			out[one.GetName()] = one
		}
		return out, response
	}
	names := []string{"default", "ROOTCA"}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: agent.SecretType, ResourceNames: names}); err != nil {
		t.Fatal(err)
	}
	got, response := receive()
	first, _ := s.get(t.Context())
	usable(t, first, got["default"], got["ROOTCA"])
	if err := stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: agent.SecretType, ResourceNames: names, ResponseNonce: response.GetNonce(), VersionInfo: response.GetVersionInfo()}); err != nil {
		t.Fatal(err)
	}
	second := s.renew(t)
	got, renewed := receive()
	usable(t, second, got["default"], got["ROOTCA"])
	if renewed.GetVersionInfo() == response.GetVersionInfo() || renewed.GetNonce() == response.GetNonce() {
		t.Errorf("version %q and nonce %q did not change", renewed.GetVersionInfo(), renewed.GetNonce())
	}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another type: %v", err)
	}
}

// Incrementally only what changed is sent, and a name that there is not is said to be none.
func TestDeltaSecrets(t *testing.T) {
	s := newSource(t)
	stream, err := secretv3.NewSecretDiscoveryServiceClient(dial(t, sockets(t, s, controlplane.Upstream{}).SDS)).DeltaSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(r *discoveryv3.DeltaDiscoveryRequest) (string, *discoveryv3.DeltaDiscoveryResponse) {
		t.Helper()
		if r != nil {
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, one := range response.GetResources() {
			names = append(names, one.GetName())
		}
		return strings.Join(append(names, response.GetRemovedResources()...), ","), response
	}
	if got, _ := exchange(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: agent.SecretType, ResourceNamesSubscribe: []string{"default"}}); got != "default" {
		t.Errorf("first: %s", got)
	}
	if got, r := exchange(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: agent.SecretType, ResourceNamesSubscribe: []string{"ROOTCA", "kubernetes://x"}}); got != "ROOTCA,kubernetes://x" || len(r.GetRemovedResources()) != 1 {
		t.Errorf("more: %v", got)
	}
	s.renew(t)
	if got, _ := exchange(nil); got != "default" {
		t.Errorf("renewed: %s, want the certificate only, as the roots are the same", got)
	}
}

func TestFetchSecrets(t *testing.T) {
	s := newSource(t)
	client := secretv3.NewSecretDiscoveryServiceClient(dial(t, sockets(t, s, controlplane.Upstream{}).SDS))
	response, err := client.FetchSecrets(t.Context(), &discoveryv3.DiscoveryRequest{ResourceNames: []string{"default"}})
	if err != nil || len(response.GetResources()) != 1 {
		t.Errorf("%v, %v", response, err)
	}
	if _, err := client.FetchSecrets(t.Context(), &discoveryv3.DiscoveryRequest{ResourceNames: []string{"other"}}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	s.mu.Lock()
	s.current = nil
	s.mu.Unlock()
	if _, err := client.FetchSecrets(t.Context(), &discoveryv3.DiscoveryRequest{ResourceNames: []string{"default"}}); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}

// echo answers each request with its nonce and who asked.
type echo struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
}

func (echo) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil
		}
		if r.GetTypeUrl() == "end" {
			return status.Error(codes.PermissionDenied, "not yours")
		}
		response := &discoveryv3.DeltaDiscoveryResponse{Nonce: r.GetResponseNonce(), SystemVersionInfo: fmt.Sprint(md.Get("authorization"), md.Get("clusterid"))}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// The engine's stream reaches the control plane with the proxy's credentials, and its end comes back.
func TestForward(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, echo{})
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	opened := sockets(t, newSource(t), controlplane.Upstream{URL: "http://" + listener.Addr().String(), TokenFile: token, ClusterID: "c1"})
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(t, opened.XDS))
	stream, err := client.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, nonce := range []string{"1", strings.Repeat("large", 1<<20)} {
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: nonce}); err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil || r.GetNonce() != nonce || r.GetSystemVersionInfo() != "[Bearer secret] [c1]" {
			t.Errorf("%.100v, %v", r, err)
		}
	}
	stream, err = client.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "end"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the end: %v", err)
	}
	if _, err := secretv3.NewSecretDiscoveryServiceClient(dial(t, opened.XDS)).FetchSecrets(t.Context(), &discoveryv3.DiscoveryRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("another service: %v", err)
	}
}

// Others on the host cannot read the private key.
func TestSocketsArePrivate(t *testing.T) {
	opened := sockets(t, newSource(t), controlplane.Upstream{})
	for _, path := range []string{opened.SDS, opened.XDS} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// A real Envoy takes the bootstrap.
func TestBootstrapIsValid(t *testing.T) {
	for name, addresses := range map[string][3]string{
		"IPv4": {":15090", ":15021", "10.0.0.9"}, "dual stack": {"[::]:15090", "[::]:15021", "10.0.0.9"}, "by its addresses": {":15090", ":15021", "10.0.0.9,fd00::9"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := agent.Bootstrap(agent.BootstrapConfig{
				Node: &corev3.Node{Id: "router~10.0.0.9~gw.edge~edge.svc.cluster.local", Cluster: "gw", Metadata: &structpb.Struct{
					Fields: map[string]*structpb.Value{"INSTANCE_IPS": structpb.NewStringValue(addresses[2])},
				}}, Admin: "127.0.0.1:15000", Agent: ":15020",
				Stats: addresses[0], Readiness: addresses[1], XDS: "/tmp/XDS", SDS: "/tmp/SDS", Zipkin: "zipkin.istio-system:9411",
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range b.StaticResources.Listeners {
				if s := l.Address.GetSocketAddress(); (s.GetAddress() == "::") != (name != "IPv4") || s.GetIpv4Compat() != (name != "IPv4") {
					t.Errorf("%s listens at %v", l.Name, s)
				}
			}
			text, err := protojson.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "bootstrap.json")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, realEnvoy(t), "--mode", "validate", "-c", path, "-l", "error").CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	if _, err := agent.Bootstrap(agent.BootstrapConfig{Admin: "127.0.0.1:x"}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:x") {
		t.Errorf("%v", err)
	}
}

// realEnvoy is where `make envoy` puts it.
func realEnvoy(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../out/envoy/envoy")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("the real Envoy is missing: run `make envoy` (%v)", err)
	}
	return path
}

func TestTheDirectoryOfTheSocketsIsNarrowed(t *testing.T) {
	dir, err := os.MkdirTemp("", "wp") //nolint:usetesting // the path of a Unix socket is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // what is to be narrowed
		t.Fatal(err)
	}
	opened, err := agent.OpenSockets(t.Context(), dir, controlplane.Upstream{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
