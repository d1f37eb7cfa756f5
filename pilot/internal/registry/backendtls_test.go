package registry

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

const backendTLSWorld = `apiVersion: v1
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
spec: {clusterIP: 10.96.0.9, selector: {app: cart}, ports: [{name: http, port: 80}, {name: https, port: 443}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}], hostname: cart.example.com}
`

func authorityYAML(t *testing.T) string {
	t.Helper()
	w := newWorld(t)
	data := SecretData(w.decode(secretYAML(t, "shop", "ca"))[0].Object.(*corev1.Secret))
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca, namespace: shop}\nbinaryData: {ca.crt: \"" + base64.StdEncoding.EncodeToString(data["ca.crt"]) + "\"}\n"
}

func (w *world) cluster(scope, name string) *clusterv3.Cluster {
	w.t.Helper()
	out := &clusterv3.Cluster{}
	if err := proto.Unmarshal([]byte(w.has[scope]["cds "+name]), out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) status(key string) string {
	for _, s := range w.r.Statuses() {
		if s.Key() == key {
			return string(s.Content)
		}
	}
	return ""
}

const (
	cartHTTP   = "inbound-vip|80|http|cart.shop.svc.cluster.local"
	cartTLS    = "inbound-vip|443|tcp|cart.shop.svc.cluster.local"
	cartPolicy = "gateway.networking.k8s.io/BackendTLSPolicy/shop/cart"
	cartRoots  = "sds configmap://shop/ca-cacert"
)

// A waypoint speaks TLS to the targets of a policy when there is somebody to trust, and nothing at all while there is nobody. The
// authorities need no Role: they have no key.
func TestBackendTLSPolicy(t *testing.T) {
	w := newWorld(t, backendTLSWorld)
	secrets := w.connect(waypointNode(t), server.Peer{Namespace: "shop", ServiceAccount: "waypoint"})
	stranger := w.connect(waypointNode(t), server.Peer{Namespace: "other", ServiceAccount: "waypoint"})
	scope := w.r.Scopes().ScopeOf(waypointNode(t), server.Peer{}, ClusterType)
	refused := func(when string) {
		t.Helper()
		if c := w.cluster(scope, cartHTTP); c.GetType() != clusterv3.Cluster_STATIC || len(c.GetLoadAssignment().GetEndpoints()) > 0 || len(c.GetTransportSocketMatches()) > 0 {
			t.Errorf("%s: %v", when, c)
		}
		if got := w.names(secrets); len(got) > 0 {
			t.Errorf("%s: %v", when, got)
		}
		if s := w.status(cartPolicy); !strings.Contains(s, `"NoValidCACertificate"`) || !strings.Contains(s, `"InvalidCACertificateRef"`) || !strings.Contains(s, `"name":"waypoint"`) {
			t.Errorf("%s: %s", when, s)
		}
	}
	refused("without the ConfigMap")
	authority := authorityYAML(t)
	w.apply(authority)
	c := w.cluster(scope, cartHTTP)
	if c.GetType() != clusterv3.Cluster_EDS || len(c.GetTransportSocketMatches()) != 2 || !strings.Contains(c.String(), "cart.example.com") {
		t.Errorf("with the ConfigMap: %v", c)
	}
	if got := w.names(secrets); !slices.Equal(got, []string{cartRoots}) {
		t.Errorf("secrets: %v", got)
	}
	if got := w.names(stranger); len(got) > 0 {
		t.Errorf("a proxy of another namespace that says it is of this one has %v", got)
	}
	if s := w.status(cartPolicy); strings.Contains(s, `"False"`) || !strings.Contains(s, `"Accepted"`) {
		t.Error(s)
	}
	if c := w.cluster(scope, cartTLS); strings.Contains(c.String(), "cart.example.com") {
		t.Errorf("TLS in the TLS of clients: %v", c)
	}
	w.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca, namespace: shop}\ndata: {ca.crt: \"\"}\n")
	refused("with an empty ConfigMap")
	w.apply(authority)
	w.remove(authority)
	refused("when the ConfigMap is gone")
	w.apply(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, trafficPolicy: {tls: {mode: DISABLE}}}
`)
	if c := w.cluster(scope, cartHTTP); c.GetType() != clusterv3.Cluster_EDS || strings.Contains(c.String(), "cart.example.com") {
		t.Errorf("a DestinationRule speaks of TLS: %v", c)
	}
}

// Nothing is refused, and no condition written, until the answer is there; what a policy names is looked for whoever is connected.
func TestBackendTLSPolicyWaitsForLookups(t *testing.T) {
	w := &world{t: t, r: New(Mesh{Mesh: ambient.Mesh{Domain: "cluster.local"}}, WithLookups()), has: map[string]map[string]string{}}
	w.sink = w.r.Sink(nil)
	w.apply(backendTLSWorld)
	w.sink.Synced()
	w.r.PublishTo(w)
	source := credential.Source{Kind: credential.ConfigMap, Namespace: "shop", Name: "ca"}
	var wanted Wanted
	defer w.r.FollowCredentials(func(all Wanted) { wanted = all })()
	if _, ok := wanted.Objects[source]; !ok {
		t.Errorf("wanted: %v", wanted.Objects)
	}
	if s := w.status(cartPolicy); s != "" {
		t.Error(s)
	}
	w.r.SetLookups([]Lookup{{Source: source}})
	if s := w.status(cartPolicy); !strings.Contains(s, "NoValidCACertificate") {
		t.Error(s)
	}
}
