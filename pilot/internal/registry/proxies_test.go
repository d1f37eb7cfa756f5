package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// world is a registry and what it has published.
type world struct {
	t    *testing.T
	r    *Registry
	sink kube.Sink
	// has is what scopes have: scope → short type and name → content.
	has       map[string]map[string]string
	changes   []string // since the last look: scope, short type, name
	withdrawn []string
}

func newWorld(t *testing.T, manifests ...string) *world {
	t.Helper()
	w := &world{t: t, r: New(Mesh{Mesh: ambient.Mesh{ClusterID: "Kubernetes", Domain: "cluster.local", TrustDomain: "cluster.local", RootNamespace: "istio-system"}}), has: map[string]map[string]string{}}
	w.sink = w.r.Sink(nil)
	w.apply(manifests...)
	w.sink.Synced()
	w.r.PublishTo(w)
	return w
}

func (w *world) decode(manifests string) []kube.Decoded {
	w.t.Helper()
	decoded, errs := kube.Decode("test.yaml", []byte(manifests))
	for _, e := range errs {
		w.t.Fatal(e)
	}
	return decoded
}

func (w *world) apply(manifests ...string) {
	w.t.Helper()
	for _, m := range manifests {
		for _, d := range w.decode(m) {
			w.sink.Apply(d.GVK, []kube.Object{d.Object}, nil)
		}
	}
	w.flush()
}

func (w *world) remove(manifests string) {
	w.t.Helper()
	for _, d := range w.decode(manifests) {
		w.sink.Apply(d.GVK, nil, []types.NamespacedName{{Namespace: d.Object.GetNamespace(), Name: d.Object.GetName()}})
	}
	w.flush()
}

func (w *world) flush() {
	if f, ok := w.sink.(kube.Flusher); ok {
		f.Flush()
	}
}

func (w *world) Publish(string, []delta.Resource, []string) {}

func (w *world) WithdrawScope(scope string) { w.withdrawn = append(w.withdrawn, scope) }

func (w *world) PublishScope(scope string, updates ...server.Update) {
	if w.has[scope] == nil {
		w.has[scope] = map[string]string{}
	}
	for _, u := range updates {
		short := map[string]string{ListenerType: "lds", ClusterType: "cds", RouteType: "rds", EndpointType: "eds", SecretType: "sds"}[u.TypeURL]
		for _, r := range u.Changed {
			w.has[scope][short+" "+r.Name] = string(r.Any.GetValue())
			w.changes = append(w.changes, scope+" "+short+" "+r.Name)
		}
		for _, name := range u.Removed {
			delete(w.has[scope], short+" "+name)
			w.changes = append(w.changes, scope+" -"+short+" "+name)
		}
	}
}

// took returns what has been published since the last call.
func (w *world) took() []string {
	out := w.changes
	w.changes = nil
	return out
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	if got := w.took(); !slices.Equal(got, want) {
		w.t.Errorf("published\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (w *world) names(scope string) []string { return slices.Sorted(maps.Keys(w.has[scope])) }

func gatewayYAML(ns, name string) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: %s}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
`, name, ns)
}

func serviceYAML(ns, name, vip, labels string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s, labels: {%s}}
spec: {clusterIP: %s, selector: {app: %s}, ports: [{name: http, port: 9080}]}
---
`, name, ns, labels, vip, name)
}

func podYAML(ns, app, version string, n int, ip string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s-%s-%d, namespace: %s, labels: {app: %s, version: %s}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: %s, nodeName: node-1, containers: [{name: c, image: i}]}
status: {podIP: %s, conditions: [{type: Ready, status: "True"}]}
---
`, app, version, n, ns, app, version, app, ip)
}

const reviewsRoutes = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
---
`

func bookshop() string {
	return gatewayYAML("shop", "wp") + gatewayYAML("other", "wp") +
		serviceYAML("shop", "reviews", "10.96.0.1", "istio.io/use-waypoint: wp") +
		serviceYAML("shop", "ratings", "10.96.0.2", "istio.io/use-waypoint: wp") +
		serviceYAML("shop", "plain", "10.96.0.3", "") +
		serviceYAML("other", "reviews", "10.96.0.4", "istio.io/use-waypoint: wp") +
		podYAML("shop", "reviews", "v1", 1, "10.1.0.1") + podYAML("shop", "reviews", "v2", 1, "10.1.0.2") +
		podYAML("shop", "ratings", "v1", 1, "10.1.0.3") + reviewsRoutes
}

const (
	shopScope  = "waypoint/shop/wp"
	otherScope = "waypoint/other/wp"
)

func TestWaypointScope(t *testing.T) {
	w := newWorld(t, bookshop())
	w.expect()
	w.r.Scopes().Open(shopScope)
	want := []string{
		"cds connect_originate", "cds encap",
		"cds inbound-vip|9080|http/v1|reviews.shop.svc.cluster.local", "cds inbound-vip|9080|http/v2|reviews.shop.svc.cluster.local",
		"cds inbound-vip|9080|http|ratings.shop.svc.cluster.local", "cds inbound-vip|9080|http|reviews.shop.svc.cluster.local",
		"cds main_internal",
		"eds inbound-vip|9080|http/v1|reviews.shop.svc.cluster.local", "eds inbound-vip|9080|http/v2|reviews.shop.svc.cluster.local",
		"eds inbound-vip|9080|http|ratings.shop.svc.cluster.local", "eds inbound-vip|9080|http|reviews.shop.svc.cluster.local",
		"lds connect_originate", "lds connect_terminate", "lds main_internal",
		"rds inbound-vip|9080|http|ratings.shop.svc.cluster.local", "rds inbound-vip|9080|http|reviews.shop.svc.cluster.local",
	}
	if got := w.names(shopScope); !slices.Equal(got, want) {
		t.Errorf("got\n  %s", strings.Join(got, "\n  "))
	}
}

// A change is published as the resources that it changes, and to the scopes that use them.
func TestOnlyWhatChanged(t *testing.T) {
	w := newWorld(t, bookshop())
	w.r.Scopes().Open(shopScope)
	w.r.Scopes().Open(otherScope)
	w.took()

	w.apply(strings.Replace(reviewsRoutes, "weight: 90", "weight: 89", 1))
	w.expect(shopScope + " rds inbound-vip|9080|http|reviews.shop.svc.cluster.local")

	w.apply(podYAML("shop", "ratings", "v1", 1, "10.1.0.33"))
	w.expect(shopScope + " eds inbound-vip|9080|http|ratings.shop.svc.cluster.local")

	w.apply(podYAML("other", "reviews", "v1", 1, "10.1.0.9"))
	w.expect(otherScope + " eds inbound-vip|9080|http|reviews.other.svc.cluster.local")

	w.apply(podYAML("shop", "plain", "v1", 1, "10.1.0.8")) // no waypoint
	w.expect()

	w.apply(serviceYAML("shop", "plain", "10.96.0.3", "istio.io/use-waypoint: wp"))
	w.expect(
		shopScope+" cds inbound-vip|9080|http|plain.shop.svc.cluster.local",
		shopScope+" eds inbound-vip|9080|http|plain.shop.svc.cluster.local",
		shopScope+" lds main_internal",
		shopScope+" rds inbound-vip|9080|http|plain.shop.svc.cluster.local",
	)
	w.r.Scopes().Close(otherScope)
	w.took()
	w.apply(podYAML("other", "reviews", "v1", 1, "10.1.0.10")) // nobody is left
	w.expect()
}

// A route to a service that the waypoint does not serve brings that service's cluster along, and nothing else of it.
func TestUsedServices(t *testing.T) {
	w := newWorld(t, bookshop())
	w.r.Scopes().Open(otherScope)
	w.took()
	w.apply(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: other}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews.shop.svc.cluster.local, subset: v1}}]}]}
`)
	w.expect(
		otherScope+" cds outbound|9080|v1|reviews.shop.svc.cluster.local",
		otherScope+" eds outbound|9080|v1|reviews.shop.svc.cluster.local",
		otherScope+" rds inbound-vip|9080|http|reviews.other.svc.cluster.local",
	)
}

// A Gateway that is gone takes nothing away from its proxies, which are about to go too; one that does not exist yet has none.
func TestGatewayComesAndGoes(t *testing.T) {
	w := newWorld(t)
	w.r.Scopes().Open(shopScope)
	w.expect()
	w.apply(bookshop())
	if len(w.took()) == 0 {
		t.Error("nothing published for a Gateway that comes")
	}
	w.remove(gatewayYAML("shop", "wp"))
	w.expect()
	if !slices.Equal(w.withdrawn, []string{shopScope}) {
		t.Errorf("withdrawn: %v", w.withdrawn)
	}
	w.apply(gatewayYAML("shop", "wp"))
	if got := w.took(); len(got) < 10 {
		t.Errorf("a Gateway that comes back is published whole, not as %v", got)
	}
}

func TestScopeOf(t *testing.T) {
	node := func(id string, meta map[string]any) *corev3.Node {
		s, err := structpb.NewStruct(meta)
		if err != nil {
			t.Fatal(err)
		}
		return &corev3.Node{Id: id, Metadata: s}
	}
	labels := func(l map[string]any) map[string]any { return map[string]any{"NAMESPACE": "shop", "LABELS": l} }
	for _, c := range []struct {
		node *corev3.Node
		typ  string
		want string
	}{
		{node("waypoint~1.2.3.4~wp-1.shop~shop.svc.cluster.local", labels(map[string]any{labelGatewayName: "wp"})), ClusterType, "waypoint/shop/wp"},
		{node("waypoint~1.2.3.4~wp-1.shop~shop.svc.cluster.local", labels(map[string]any{labelGatewayName: "wp"})), AddressType, ""},
		{node("waypoint~fd00::4~wp-1.shop~shop.svc.cluster.local", labels(map[string]any{labelGatewayName: "wp"})), ListenerType, "waypoint-v6/shop/wp"},
		{node("waypoint~1.2.3.4~wp-1.shop~shop.svc.cluster.local", map[string]any{"INSTANCE_IPS": "1.2.3.4, fd00::4", "LABELS": map[string]any{labelGatewayName: "wp"}}), ListenerType, "waypoint-dual/shop/wp"},
		{node("router~1.2.3.4~gw-1.shop~shop.svc.cluster.local", map[string]any{"INSTANCE_IPS": "1.2.3.4,fd00::4,x", "LABELS": map[string]any{"istio": "gw"}}), RouteType, "router-dual/shop/istio=gw"},
		{node("router~1.2.3.4~gw-1.shop~shop.svc.cluster.local", labels(map[string]any{"istio": "gw", "app": "gw", "pod-template-hash": "x"})), RouteType, "router/shop/app=gw,istio=gw"},
		{node("router~1.2.3.4~gw-1.shop~shop.svc.cluster.local", nil), ListenerType, "router/shop/"},
		{node("sidecar~1.2.3.4~c-1.shop~shop.svc.cluster.local", map[string]any{"GENERATOR": "grpc"}), ListenerType, "grpc/shop"},
		{node("sidecar~1.2.3.4~c-1.shop~shop.svc.cluster.local", nil), ListenerType, "unsupported/sidecar"},
		{node("router~1.2.3.4~gw-1.shop~shop.svc.cluster.local", labels(map[string]any{"istio": "gw\x00" + ListenerType + "\x00", "zz": "x"})), RouteType, "unsupported/names"},
		{node("router~1.2.3.4~gw-1.shop~shop.svc.cluster.local", labels(map[string]any{"istio": "gw,zz=x"})), RouteType, "unsupported/names"},
		{node("router~1.2.3.4~gw-1.shop~shop.svc.cluster.local", labels(map[string]any{"istio=gw,a": "x"})), RouteType, "unsupported/names"},
		{node("waypoint~1.2.3.4~wp-1.shop~shop.svc.cluster.local", labels(map[string]any{labelGatewayName: "wp/other"})), ClusterType, "unsupported/names"},
		{node("sidecar~1.2.3.4~c-1.shop~shop.svc.cluster.local", map[string]any{"GENERATOR": "grpc", "NAMESPACE": "shop\x00"}), ListenerType, "unsupported/names"},
		{node("ztunnel~1.2.3.4~z-1.istio-system~istio-system.svc.cluster.local", nil), AddressType, ""},
	} {
		got := ScopeOf(c.node, server.Peer{}, c.typ)
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.node.GetId(), got, c.want)
		}
		if s := nodeScope(c.node); c.want != "" && s.kind != unsupported {
			if back := parseScope(got); back.kind != s.kind || back.namespace != s.namespace || back.gateway != s.gateway || back.families != s.families || joinLabels(back.labels) != joinLabels(s.labels) {
				t.Errorf("%q is read back as %+v, want %+v", got, back, s)
			}
		}
	}
}

// The layout that the scoping is judged by: 2 namespaces of 25 services with 10 pods each, a waypoint of 2 pods in each namespace.
// Were all pods proxies of their own, each would have to know of every service.
func TestScopeIsOnePercent(t *testing.T) {
	const namespaces, services, pods, replicas = 2, 25, 10, 2
	var b strings.Builder
	for n := range namespaces {
		ns := fmt.Sprintf("ns-%d", n)
		b.WriteString(gatewayYAML(ns, "wp"))
		for s := range services {
			app := fmt.Sprintf("svc-%d", s)
			b.WriteString(serviceYAML(ns, app, fmt.Sprintf("10.96.%d.%d", n, s+1), "istio.io/use-waypoint: wp"))
			for p := range pods {
				b.WriteString(podYAML(ns, app, "v1", p, fmt.Sprintf("10.%d.%d.%d", n+1, s, p+1)))
			}
		}
	}
	w := newWorld(t, b.String())
	waypoints, served := 0, 0
	for n := range namespaces {
		scope := fmt.Sprintf("waypoint/ns-%d/wp", n)
		w.r.Scopes().Open(scope)
		for name, content := range w.has[scope] {
			waypoints += replicas * len(content)
			if strings.HasPrefix(name, "rds ") {
				served += replicas
			}
		}
	}
	proxies := namespaces * services * pods
	if served != 100 || float64(served) > 0.01*float64(services*pods*namespaces*services) {
		t.Errorf("%d configurations of services, against %d of the services of its own namespace in each pod", served, proxies*services)
	}
	full := proxies * fullMesh(t, w)
	t.Logf("waypoints %d bytes, full mesh %d bytes: %.2f %%", waypoints, full, 100*float64(waypoints)/float64(full))
	if float64(waypoints) > 0.01*float64(full) {
		t.Errorf("waypoints have %d bytes, more than 1 %% of %d", waypoints, full)
	}
}

// fullMesh is the size of what one proxy needs that may call every service: a listener, routes, a cluster and its endpoints each.
func fullMesh(t *testing.T, w *world) int {
	t.Helper()
	w.r.Scopes().Open("grpc/ns-0")
	size := 0
	for name, content := range w.has["grpc/ns-0"] {
		if !strings.HasPrefix(name, "cds ") {
			size += len(content)
		}
	}
	for _, s := range w.r.Services() {
		c := envoy.Cluster{Name: envoy.Outbound(9080, "", s.Proto.Hostname), Host: s.Proto.Hostname, Service: s.Proto.Name, Namespace: s.Proto.Namespace, Port: 9080, Protocol: envoy.HTTP}
		size += proto.Size(c.Resource())
	}
	return size
}
