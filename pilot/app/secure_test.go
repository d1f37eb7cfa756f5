package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

const proxyPod = `apiVersion: v1
kind: Pod
metadata: {name: ztunnel-1, namespace: istio-system, uid: z1}
spec: {serviceAccountName: ztunnel, nodeName: node-1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.2}
`

// secureBed is a control plane with a key for tokens, and a connection to its TLS port.
type secureBed struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	conn  *grpc.ClientConn
	addr  Addresses
	roots string
	dir   string // of the manifests
}

func newSecureBed(t *testing.T, manifests ...string) *secureBed {
	t.Helper()
	dir, state := t.TempDir(), t.TempDir()
	for i, m := range manifests {
		write(t, dir, fmt.Sprintf("more-%d.yaml", i), m)
	}
	write(t, dir, "web.yaml", podsAndService)
	write(t, dir, "proxy.yaml", proxyPod)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, state, "jwks.json", string(keys))
	b := &secureBed{t: t, key: key, roots: filepath.Join(state, "root-cert.pem"), dir: dir}
	b.addr = startWith(t, dir, func(cfg *Config) {
		cfg.CADir, cfg.JWKSFile, cfg.RootCertOut = filepath.Join(state, "ca"), filepath.Join(state, "jwks.json"), b.roots
	})
	text, err := os.ReadFile(b.roots)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	b.conn, err = grpc.NewClient(b.addr.SecureGRPC.String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "istiod.istio-system.svc"})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.conn.Close() })
	return b
}

func (b *secureBed) as(account string) context.Context {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	if account == "" {
		return ctx
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: b.key, KeyID: "k"}}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": Default().JWTIssuer, "aud": "istio-ca", "sub": "system:serviceaccount:" + account, "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"pod": map[string]any{"name": "ztunnel-1", "uid": "z1"}},
	}).Serialize()
	if err != nil {
		b.t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "clusterid", "Kubernetes")
}

func TestTheSecurePortServesDiscoveryToWhoProvesWhoTheyAre(t *testing.T) {
	b := newSecureBed(t)
	for name, tt := range map[string]struct {
		account, namespace string
		node               bool
		want               codes.Code
	}{
		"a node proxy":              {"istio-system:ztunnel", "istio-system", true, codes.OK},
		"nobody":                    {"", "istio-system", true, codes.Unauthenticated},
		"who claims another":        {"shop:web", "istio-system", true, codes.PermissionDenied},
		"who does not say its node": {"istio-system:ztunnel", "", false, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := discovery.NewAggregatedDiscoveryServiceClient(b.conn).DeltaAggregatedResources(b.as(tt.account))
			if err != nil {
				t.Fatal(err)
			}
			request := &discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType}
			if tt.node {
				about, err := structpb.NewStruct(map[string]any{"NAMESPACE": tt.namespace})
				if err != nil {
					t.Fatal(err)
				}
				request.Node = &corev3.Node{Id: "ztunnel~10.0.0.9~ztunnel-1.istio-system~istio-system.svc.cluster.local", Metadata: about}
			}
			if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) { // EOF: refused before it was sent; Recv tells why
				t.Fatal(err)
			}
			response, err := stream.Recv()
			if status.Code(err) != tt.want || err == nil && len(response.GetResources()) == 0 {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestTheSecurePortIssuesCertificates(t *testing.T) {
	b := newSecureBed(t)
	ca := authv1.NewIstioCertificateServiceClient(b.conn)
	ask := func(account, identity string) error {
		id, err := spiffe.Parse(identity)
		if err != nil {
			t.Fatal(err)
		}
		csr, key, err := certs.NewCSR(id)
		if err != nil {
			t.Fatal(err)
		}
		about, err := structpb.NewStruct(map[string]any{"ImpersonatedIdentity": identity})
		if err != nil {
			t.Fatal(err)
		}
		response, err := ca.CreateCertificate(b.as(account), &authv1.IstioCertificateRequest{Csr: string(csr), Metadata: about})
		if err != nil {
			return err
		}
		_, err = certs.FromChain(id, key, response.GetCertChain())
		return err
	}
	if err := ask("istio-system:ztunnel", "spiffe://cluster.local/ns/shop/sa/web"); err != nil {
		t.Errorf("for a pod on the proxy's node: %v", err)
	}
	if err := ask("istio-system:ztunnel", "spiffe://cluster.local/ns/shop/sa/other"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("for an account that is not on the node: %v", err)
	}
	if err := ask("shop:web", "spiffe://cluster.local/ns/shop/sa/web"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("by somebody who is no node proxy: %v", err)
	}
}

// TestToolsLearnWhatProxiesHave asks as istioctl proxy-status does.
func TestToolsLearnWhatProxiesHave(t *testing.T) {
	b := newSecureBed(t)
	proxies := discovery.NewAggregatedDiscoveryServiceClient(b.conn)
	proxy, err := proxies.DeltaAggregatedResources(b.as("istio-system:ztunnel"))
	if err != nil {
		t.Fatal(err)
	}
	about, err := structpb.NewStruct(map[string]any{"NAMESPACE": "istio-system", "CLUSTER_ID": "Kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	node := &corev3.Node{Id: "ztunnel~10.0.0.9~ztunnel-1.istio-system~istio-system.svc.cluster.local", Metadata: about}
	if err := proxy.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType, Node: node}); err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Recv(); err != nil {
		t.Fatal(err)
	}
	tool, err := proxies.StreamAggregatedResources(b.as("istio-system:default"))
	if err != nil {
		t.Fatal(err)
	}
	generator, err := structpb.NewStruct(map[string]any{"GENERATOR": "event"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tool.Send(&discovery.DiscoveryRequest{TypeUrl: "istio.io/debug/syncz", Node: &corev3.Node{Id: "debug~0.0.0.0~istioctl~cluster.local", Metadata: generator}}); err != nil {
		t.Fatal(err)
	}
	answer, err := tool.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var id struct {
		Component, ID string
		Info          map[string]string
	}
	if err := json.Unmarshal([]byte(answer.GetControlPlane().GetIdentifier()), &id); err != nil || id.Component != "istiod" || id.ID == "" || id.Info["version"] == "" {
		t.Errorf("identifier %q: %v", answer.GetControlPlane().GetIdentifier(), err)
	}
	if len(answer.GetResources()) != 1 {
		t.Fatalf("%d proxies, want the one: tools do not count", len(answer.GetResources()))
	}
	var config statusv3.ClientConfig
	if err := answer.GetResources()[0].UnmarshalTo(&config); err != nil || config.GetNode().GetId() != "ztunnel-1.istio-system" || len(config.GetGenericXdsConfigs()) != 1 {
		t.Errorf("%v: %v", &config, err)
	}
}

func TestBrokenCAIsNoStart(t *testing.T) {
	state := t.TempDir()
	write(t, state, "root-cert.pem", "x")
	cfg := Default()
	cfg.ConfigDir, cfg.CADir, cfg.Log = t.TempDir(), state, slog.New(slog.DiscardHandler)
	if err := Run(t.Context(), cfg); err == nil {
		t.Error("started with half of a plugged-in CA")
	}
}
