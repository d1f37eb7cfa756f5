package registry

import (
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// familyNode is a proxy of the Gateway wp, or a router with the label istio=gw, that has addresses.
func familyNode(kind, pod string, addresses ...string) *corev3.Node {
	labels := map[string]any{labelGatewayName: "wp"}
	if kind == "router" {
		labels = map[string]any{"istio": "gw"}
	}
	return &corev3.Node{Id: kind + "~" + addresses[0] + "~" + pod + ".shop~shop.svc.cluster.local", Metadata: metadata(map[string]any{
		"NAMESPACE": "shop", "LABELS": labels, "INSTANCE_IPS": strings.Join(addresses, ","),
	})}
}

// open opens the scope of a proxy for a type, and returns its key.
func (w *world) open(node *corev3.Node, typeURL string) string {
	w.t.Helper()
	key := w.r.Scopes().ScopeOf(node, server.Peer{}, typeURL)
	w.r.Scopes().Open(key)
	return key
}

// listens are the addresses that the listeners of a scope are bound to, each once.
func (w *world) listens(scope string) (out []string) {
	w.t.Helper()
	for name, content := range w.has[scope] {
		if !strings.HasPrefix(name, "lds ") {
			continue
		}
		var l listenerv3.Listener
		if err := proto.Unmarshal([]byte(content), &l); err != nil {
			w.t.Fatal(err)
		}
		for _, a := range append([]*listenerv3.AdditionalAddress{{Address: l.GetAddress()}}, l.GetAdditionalAddresses()...) {
			if s := a.GetAddress().GetSocketAddress(); s != nil {
				out = append(out, s.GetAddress())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

const edgeGateway = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: reviews}}]}]}
---
`

// Two pods of one Gateway may have other families of addresses, as while a cluster is made dual-stack: each listens at its own, both
// serve the same, and one that goes leaves the other alone.
func TestPodsOfOneGatewayDifferInFamilies(t *testing.T) {
	w := newWorld(t, bookshop())
	four := w.open(familyNode("waypoint", "wp-1", "10.1.0.9"), ListenerType)
	both := w.open(familyNode("waypoint", "wp-2", "10.1.0.10", "fd00::10"), ListenerType)
	six := w.open(familyNode("waypoint", "wp-3", "fd00::11"), ListenerType)
	for scope, want := range map[string][]string{four: {"0.0.0.0"}, both: {"0.0.0.0", "::"}, six: {"::"}} {
		if got := w.listens(scope); !slices.Equal(got, want) {
			t.Errorf("%s listens at %q, want %q", scope, got, want)
		}
	}
	if four == both || both == six || !slices.Equal(w.names(four), w.names(both)) || !slices.Equal(w.names(both), w.names(six)) {
		t.Errorf("what they have differs: %q, %q, %q", w.names(four), w.names(both), w.names(six))
	}
	// Endpoints go to all of them, by the place of each.
	for _, node := range []*corev3.Node{familyNode("waypoint", "wp-1", "10.1.0.9"), familyNode("waypoint", "wp-2", "10.1.0.10", "fd00::10")} {
		if scope := w.r.Scopes().ScopeOf(node, server.Peer{}, EndpointType); !strings.HasPrefix(scope, w.r.Scopes().ScopeOf(node, server.Peer{}, ListenerType)) {
			t.Errorf("endpoints of %s come from %s", node.GetId(), scope)
		}
	}
	w.took()
	w.apply(podYAML("shop", "ratings", "v1", 1, "10.1.0.33"))
	const changed = " eds inbound-vip|9080|http|ratings.shop.svc.cluster.local"
	w.expect(both+changed, six+changed, four+changed)
	w.r.Scopes().Close(both)
	w.took()
	w.apply(podYAML("shop", "ratings", "v1", 1, "10.1.0.34"))
	w.expect(six+changed, four+changed)
}

// A mesh of IPv6 alone: no listener of its waypoints and gateways is at an address of IPv4, which their pods do not have.
func TestListenersOfIPv6Alone(t *testing.T) {
	sixth := strings.NewReplacer("10.96.0.", "fd00:96::", "10.1.0.", "fd00:1::")
	w := newWorld(t, sixth.Replace(bookshop()), edgeGateway)
	for _, node := range []*corev3.Node{familyNode("waypoint", "wp-1", "fd00:1::9"), familyNode("router", "gw-1", "fd00:1::10")} {
		scope := w.open(node, ListenerType)
		if got := w.listens(scope); !slices.Equal(got, []string{"::"}) {
			t.Errorf("%s listens at %q", scope, got)
		}
		endpoints := 0
		for name, content := range w.has[scope] {
			if strings.HasPrefix(name, "eds ") && strings.Contains(content, "fd00:1::") {
				endpoints++
			}
		}
		if endpoints == 0 {
			t.Errorf("%s has no endpoints", scope)
		}
	}
	// The proxy's own name says its family where it does not list its addresses.
	silent := &corev3.Node{Id: "router~fd00:1::10~gw-1.shop~shop.svc.cluster.local", Metadata: metadata(map[string]any{"NAMESPACE": "shop", "LABELS": map[string]any{"istio": "gw"}})}
	if got := w.listens(w.open(silent, ListenerType)); !slices.Equal(got, []string{"::"}) {
		t.Errorf("listens at %q", got)
	}
}
