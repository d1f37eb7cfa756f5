package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

func nodeYAML(name, region, zone string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s, labels: {topology.kubernetes.io/region: %s, topology.kubernetes.io/zone: %s}}
---
`, name, region, zone)
}

func placedPod(name, app, node, ready string, n int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: shop, labels: {app: %s}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: %s, nodeName: %s, containers: [{name: c, image: i}]}
status: {podIP: 10.1.0.%d, conditions: [{type: Ready, status: %q}]}
---
`, name, app, app, node, n, ready)
}

const outliers = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5}}}
---
`

func zones() string {
	return nodeYAML("node-a", "r", "a") + nodeYAML("node-b", "r", "b") + gatewayYAML("shop", "wp") +
		serviceYAML("shop", "reviews", "10.96.0.1", "istio.io/use-waypoint: wp") +
		placedPod("reviews-a", "reviews", "node-a", "True", 1) + placedPod("reviews-b", "reviews", "node-b", "True", 2) +
		placedPod("wp-a", "wp", "node-a", "True", 11) + placedPod("wp-b", "wp", "node-b", "True", 12)
}

func metadata(fields map[string]any) *structpb.Struct {
	out, err := structpb.NewStruct(fields)
	if err != nil {
		panic(err)
	}
	return out
}

func proxyNode(pod string) *corev3.Node {
	return &corev3.Node{Id: "waypoint~10.1.0.9~" + pod + ".shop~shop.svc.cluster.local", Metadata: metadata(map[string]any{
		"NAMESPACE": "shop", "LABELS": map[string]any{"gateway.networking.k8s.io/gateway-name": "wp"},
	})}
}

// priorities are those of a scope's endpoints of reviews: priority, zone and health.
func (w *world) priorities(scope string) string {
	w.t.Helper()
	text, ok := w.has[scope]["eds inbound-vip|9080|http|reviews.shop.svc.cluster.local"]
	if !ok {
		return "none"
	}
	var cla endpointv3.ClusterLoadAssignment
	if err := proto.Unmarshal([]byte(text), &cla); err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, g := range cla.Endpoints {
		for _, e := range g.LbEndpoints {
			out = append(out, fmt.Sprintf("%d%s %s", g.Priority, g.Locality.Zone, e.HealthStatus))
		}
	}
	return strings.Join(out, ", ")
}

// Proxies of one waypoint in two zones each prefer the endpoints that are near.
func TestEndpointsByPlace(t *testing.T) {
	w := newWorld(t, zones()+outliers)
	scopes := w.r.Scopes()
	a, b := scopes.ScopeOf(proxyNode("wp-a"), server.Peer{}, EndpointType), scopes.ScopeOf(proxyNode("wp-b"), server.Peer{}, EndpointType)
	if a != shopScope+"@r/a//node-a" || b != shopScope+"@r/b//node-b" || scopes.ScopeOf(proxyNode("wp-a"), server.Peer{}, ClusterType) != shopScope {
		t.Fatalf("scopes are %q and %q", a, b)
	}
	for _, s := range []string{shopScope, a, b} {
		scopes.Open(s)
	}
	expect := func(what, inA, inB string) {
		t.Helper()
		if got := w.priorities(a); got != inA {
			t.Errorf("%s: in zone a %s, want %s", what, got, inA)
		}
		if got := w.priorities(b); got != inB {
			t.Errorf("%s: in zone b %s, want %s", what, got, inB)
		}
	}
	expect("all are ready", "0a HEALTHY, 1b HEALTHY", "0b HEALTHY, 1a HEALTHY")
	w.took()
	w.apply(placedPod("reviews-a", "reviews", "node-a", "False", 1))
	expect("one is not ready", "0a UNHEALTHY, 1b HEALTHY", "0b HEALTHY, 1a UNHEALTHY")
	const name = " eds inbound-vip|9080|http|reviews.shop.svc.cluster.local"
	w.expect(a+name, b+name, shopScope+name)
	w.remove(placedPod("reviews-a", "reviews", "node-a", "False", 1))
	expect("it is gone", "0b HEALTHY", "0b HEALTHY")
	w.apply(placedPod("reviews-a", "reviews", "node-a", "True", 1))
	w.remove(outliers)
	expect("nothing notices failures", "0a HEALTHY, 0b HEALTHY", "0a HEALTHY, 0b HEALTHY")
	w.apply(placedPod("reviews-a", "reviews", "node-a", "False", 1))
	expect("one is not ready, and the others are no other choice", "0b HEALTHY", "0b HEALTHY")
	w.took()
	scopes.Close(a)
	w.apply(placedPod("reviews-a", "reviews", "node-a", "True", 1))
	if changes := w.took(); slices.Contains(changes, a+name) || !slices.Contains(changes, b+name) {
		t.Errorf("published %v", changes)
	}
}

func localService() string {
	return `apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, internalTrafficPolicy: Local, ports: [{name: http, port: 9080}]}
---
`
}

// A service whose traffic stays on the node: proxies of one waypoint know the endpoints of their own node each, and are told of changes
// there only.
func TestEndpointsOfOwnNode(t *testing.T) {
	w := newWorld(t, zones(), localService())
	scopes := w.r.Scopes()
	a, b := shopScope+"@r/a//node-a", shopScope+"@r/b//node-b"
	elsewhere := shopScope + "@r/a//node-c"
	for _, s := range []string{shopScope, a, b, elsewhere} {
		scopes.Open(s)
	}
	expect := func(what, inA, inB string) {
		t.Helper()
		for scope, want := range map[string]string{a: inA, b: inB, elsewhere: "", shopScope: ""} {
			if got := w.priorities(scope); got != want {
				t.Errorf("%s: %s has %q, want %q", what, scope, got, want)
			}
		}
	}
	const name = " eds inbound-vip|9080|http|reviews.shop.svc.cluster.local"
	expect("one on each node", "0a HEALTHY", "0b HEALTHY")
	w.took()
	w.apply(placedPod("reviews-a2", "reviews", "node-a", "True", 3))
	w.expect(a + name)
	expect("one more", "0a HEALTHY, 0a HEALTHY", "0b HEALTHY")
	w.remove(placedPod("reviews-a2", "reviews", "node-a", "True", 3))
	w.apply(placedPod("reviews-a", "reviews", "node-a", "False", 1))
	expect("it is not ready, and nobody takes its place", "", "0b HEALTHY")
	w.took()
	w.apply(serviceYAML("shop", "reviews", "10.96.0.1", "istio.io/use-waypoint: wp"))
	if got := w.priorities(a); got != "0b HEALTHY" {
		t.Errorf("traffic may leave the node: %q", got)
	}
}

// What looks the same from everywhere is encoded once, be there services that do not.
func TestOnlyOwnNodeIsRelative(t *testing.T) {
	ratings := serviceYAML("shop", "ratings", "10.96.0.2", "istio.io/use-waypoint: wp")
	w := newWorld(t, zones(), localService(), ratings, placedPod("ratings-a", "ratings", "node-a", "True", 21))
	a := shopScope + "@r/a//node-a"
	w.r.Scopes().Open(shopScope)
	w.r.Scopes().Open(a)
	const same, other = "eds inbound-vip|9080|http|ratings.shop.svc.cluster.local", "eds inbound-vip|9080|http|reviews.shop.svc.cluster.local"
	if w.has[a][same] == "" || w.has[a][same] != w.has[shopScope][same] {
		t.Error("ratings look otherwise from node-a")
	}
	if w.has[a][other] == w.has[shopScope][other] {
		t.Error("reviews look the same from node-a and from nowhere")
	}
}

// reachedWaypoint is the waypoint of shop with an address.
const reachedWaypoint = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.9}]}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: wp}, ports: [{name: mesh, port: 15008}]}
---
`

// A gateway that sends to a service by way of its waypoint leaves it to the waypoint to keep to its node.
func TestOnlyOwnNodeThroughWaypoint(t *testing.T) {
	service := strings.Replace(localService(), "labels: {", `labels: {istio.io/ingress-use-waypoint: "true", `, 1)
	waypoint := reachedWaypoint + `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]}
`
	w := newWorld(t, zones(), service, waypoint)
	const edge = "router/shop/istio=edge@r/z//node-9"
	w.r.Scopes().Open(edge)
	const name = "eds outbound|9080||reviews.shop.svc.cluster.local"
	var cla endpointv3.ClusterLoadAssignment
	if err := proto.Unmarshal([]byte(w.has[edge][name]), &cla); err != nil {
		t.Fatal(err)
	}
	if n := len(cla.GetEndpoints()); n != 1 {
		t.Errorf("%d localities behind the waypoint, of %v", n, w.names(edge))
	}
}

// Endpoints come before the clusters that have them, and go after those.
func TestOrderOfPlacedEndpoints(t *testing.T) {
	w := newWorld(t, zones())
	a := shopScope + "@r/a//node-a"
	w.r.Scopes().Open(shopScope)
	w.r.Scopes().Open(a)
	w.took()
	ratings := serviceYAML("shop", "ratings", "10.96.0.2", "istio.io/use-waypoint: wp")
	const name = "inbound-vip|9080|http|ratings.shop.svc.cluster.local"
	position := func(changes []string, what string) int {
		t.Helper()
		at := slices.Index(changes, what)
		if at < 0 {
			t.Fatalf("%q is not in %q", what, changes)
		}
		return at
	}
	w.apply(ratings)
	changes := w.took()
	if position(changes, a+" eds "+name) > position(changes, shopScope+" cds "+name) {
		t.Errorf("the cluster came first: %q", changes)
	}
	w.remove(ratings)
	changes = w.took()
	if position(changes, a+" -eds "+name) < position(changes, shopScope+" -cds "+name) {
		t.Errorf("the endpoints went first: %q", changes)
	}
}

// A client may ask for endpoints alone, or first.
func TestEndpointsAlone(t *testing.T) {
	w := newWorld(t, zones()+outliers)
	a := shopScope + "@r/a//node-a"
	w.r.Scopes().Open(a)
	if got := w.priorities(a); got != "0a HEALTHY, 1b HEALTHY" {
		t.Error(got)
	}
	w.r.Scopes().Open(shopScope)
	w.r.Scopes().Close(shopScope)
	w.apply(placedPod("reviews-b", "reviews", "node-b", "False", 2))
	if got := w.priorities(a); got != "0a HEALTHY, 1b UNHEALTHY" {
		t.Error(got)
	}
	w.r.Scopes().Close(a)
	if n := len(w.r.proxies.opened); n != 0 {
		t.Errorf("%d scopes are open", n)
	}
	w.has = map[string]map[string]string{}
	empty := newWorld(t, gatewayYAML("shop", "wp"))
	empty.r.Scopes().Open(a)
	if _, served := empty.has[a]; !served {
		t.Error("a scope without endpoints is not served")
	}
	nobody := "waypoint/shop/none@r/a//node-a"
	empty.r.Scopes().Open(nobody)
	if _, served := empty.has[nobody]; served {
		t.Error("a scope without a Gateway is served")
	}
}

func TestPlacesOfProxies(t *testing.T) {
	w := newWorld(t, zones()+`apiVersion: v1
kind: Pod
metadata: {name: wp-c, namespace: shop, labels: {istio-locality: x.y.z}}
spec: {nodeName: node-a, containers: [{name: c, image: i}]}
---
`)
	unknown := proxyNode("elsewhere")
	said := proxyNode("elsewhere")
	said.Locality = &corev3.Locality{Region: "r9", Zone: "z9"}
	strange := proxyNode("elsewhere")
	strange.Locality = &corev3.Locality{Region: "a@b\x00c"}
	for _, test := range []struct {
		node *corev3.Node
		want string
	}{
		{proxyNode("wp-a"), "@r/a//node-a"}, {proxyNode("wp-c"), "@x/y/z/node-a"}, {unknown, ""}, {said, "@r9/z9//"}, {strange, ""},
	} {
		if got := w.r.Scopes().ScopeOf(test.node, server.Peer{}, EndpointType); got != shopScope+test.want {
			t.Errorf("%q, want %q", got, shopScope+test.want)
		}
	}
	if got := w.r.Scopes().ScopeOf(&corev3.Node{Id: "sidecar~1~wp-a.shop~x"}, server.Peer{}, EndpointType); strings.Contains(got, "@") {
		t.Errorf("%q", got)
	}
}
