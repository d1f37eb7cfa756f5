package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
	meshapi "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

var originating = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.9, selector: {app: cart}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: authz, namespace: shop}
spec: {clusterIP: 10.96.0.10, selector: {app: authz}, ports: [{name: http, port: 8000}, {name: grpc, port: 9000}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy: {tls: {mode: MUTUAL, credentialName: own}}
  subsets:
  - {name: foreign, trafficPolicy: {tls: {mode: SIMPLE, credentialName: kubernetes://other/own}}}
  - {name: pretended, trafficPolicy: {tls: {mode: SIMPLE, credentialName: kubernetes-gateway://other/own}}}
  - {name: missing, trafficPolicy: {tls: {mode: SIMPLE, credentialName: gone}}}
  - {name: unverified, trafficPolicy: {tls: {mode: SIMPLE, credentialName: never, insecureSkipVerify: true}}}
---
` + testkit.SecretReader("shop", "waypoint")

func waypointNode(t *testing.T) *corev3.Node {
	t.Helper()
	meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": "shop", "LABELS": map[string]any{labelGatewayName: "waypoint"}})
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Node{Id: "waypoint~10.0.0.1~waypoint.shop~shop.svc.cluster.local", Metadata: meta}
}

// What a DestinationRule names is read in the namespace of the waypoint, and given to who may read it only.
func TestCredentialsOfDestinationRules(t *testing.T) {
	w := newWorld(t, originating+secretYAML(t, "shop", "own")+secretYAML(t, "other", "own")+secretYAML(t, "shop", "never"))
	for account, want := range map[string][]string{
		"waypoint": {"sds kubernetes://own", "sds kubernetes://own-cacert"},
		"default":  nil,
	} {
		scope := w.connect(waypointNode(t), server.Peer{Namespace: "shop", ServiceAccount: account})
		if got := w.names(scope); !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", account, got, want)
		}
	}
	if scope := w.connect(waypointNode(t), server.Peer{Namespace: "other", ServiceAccount: "waypoint"}); len(w.names(scope)) != 0 {
		t.Errorf("another namespace has %v", w.names(scope))
	}
	problems := fmt.Sprint(w.r.Problems()["DestinationRule shop/cart"])
	for _, want := range []string{"there is no Secret shop/gone", "other/own is not in the namespace of the proxy's pods", "kubernetes-gateway://other/own"} {
		if !strings.Contains(problems, want) {
			t.Errorf("nobody says %q: %s", want, problems)
		}
	}
}

// A waypoint has a cluster of the authorizer that a policy names, as long as there is such a policy.
func TestAuthorizersHaveClusters(t *testing.T) {
	w := newWorld(t, originating)
	w.r.SetMesh(withProviders(t))
	scopes := w.r.Scopes()
	scope := scopes.ScopeOf(waypointNode(t), server.Peer{}, ClusterType)
	scopes.Open(scope)
	has := func() bool {
		return slices.ContainsFunc(w.names(scope), func(name string) bool { return strings.HasSuffix(name, "outbound|9000||authz.shop.svc.cluster.local") })
	}
	if has() {
		t.Error("a cluster that nobody needs")
	}
	w.apply(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: cart}]
  action: CUSTOM
  provider: {name: by-grpc}
  rules: [{}]
`)
	if !has() {
		t.Errorf("no cluster of the authorizer: %v", w.names(scope))
	}
}

func withProviders(t *testing.T) Mesh {
	t.Helper()
	return Mesh{
		Mesh: ambient.Mesh{ClusterID: "Kubernetes", Domain: "cluster.local", TrustDomain: "cluster.local", RootNamespace: "istio-system"},
		Config: &meshapi.MeshConfig{RootNamespace: "istio-system", ExtensionProviders: []*meshapi.MeshConfig_ExtensionProvider{{
			Name: "by-grpc", Provider: &meshapi.MeshConfig_ExtensionProvider_EnvoyExtAuthzGrpc{
				EnvoyExtAuthzGrpc: &meshapi.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider{Service: "shop/authz.shop.svc.cluster.local", Port: 9000},
			},
		}}},
	}
}
