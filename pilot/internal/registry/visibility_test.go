package registry

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// keep puts a mesh in force that keeps ServiceEntries to themselves, by a value of serviceEntryVisibility in JSON; null is a mesh that
// does not.
func (w *world) keep(visibility string) {
	w.t.Helper()
	v, err := ambient.ReadEntryVisibility([]byte(`{"serviceEntryVisibility": ` + visibility + `}`))
	if err != nil {
		w.t.Fatal(err)
	}
	w.r.SetMesh(Mesh{Mesh: ambient.Mesh{ClusterID: "Kubernetes", Domain: "cluster.local", TrustDomain: "cluster.local", RootNamespace: "istio-system", Visibility: v}})
}

// applied is the condition of a ServiceEntry: its reason; empty without one. bound is that of its waypoint.
func (w *world) applied(namespace, name string) (applied, bound string) {
	w.t.Helper()
	for _, s := range w.r.Statuses() {
		if s.Kind != "ServiceEntry" || s.Namespace != namespace || s.Name != name {
			continue
		}
		var content struct{ Conditions []metav1.Condition }
		if err := json.Unmarshal(s.Content, &content); err != nil {
			w.t.Fatal(err)
		}
		for _, c := range content.Conditions {
			switch c.Type {
			case conditionVisibility:
				if applied = c.Reason; c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "serviceEntryVisibility") {
					w.t.Errorf("condition %+v", c)
				}
			case conditionWaypointBound:
				bound = c.Reason
			}
		}
	}
	return applied, bound
}

// published are the services of ServiceEntries, with their visibility.
func (w *world) published() (out []string) {
	for _, s := range w.r.Services() {
		if s.Entry != "" {
			out = append(out, s.Key()+" "+s.Proto.Visibility.String())
		}
	}
	slices.Sort(out)
	return out
}

func entryYAML(namespace, name, host, labels string) string {
	return `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ` + name + `, namespace: ` + namespace + `, labels: {` + labels + `}}
spec:
  hosts: [` + host + `]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 192.0.2.1}]
---
`
}

// Each entry has the visibility of its namespace's labels as they are now, and says so.
func TestVisibilityFollows(t *testing.T) {
	const trusted = `apiVersion: v1
kind: Namespace
metadata: {name: far, labels: {trusted: "true"}}
---
`
	w := newWorld(t, entryYAML("near", "a", "a.example.com", ""), entryYAML("far", "b", "b.example.com", ""))
	expect := func(near, far string, published ...string) {
		t.Helper()
		if got, _ := w.applied("near", "a"); got != near {
			t.Errorf("near: %q, want %q", got, near)
		}
		if got, _ := w.applied("far", "b"); got != far {
			t.Errorf("far: %q, want %q", got, far)
		}
		if got := w.published(); !slices.Equal(got, published) {
			t.Errorf("published %q, want %q", got, published)
		}
		if endpoints := len(w.r.Workloads()); endpoints != len(published) {
			t.Errorf("%d endpoints, published %q", endpoints, published)
		}
	}
	expect("", "", "far/b.example.com PUBLIC", "near/a.example.com PUBLIC")
	w.keep(`{}`)
	expect("Public", "Public", "far/b.example.com PUBLIC", "near/a.example.com PUBLIC")
	w.keep(`{"defaultVisibility": "NAMESPACE", "policies": [{"visibility": "PUBLIC", "matchingRules": [{"namespaceSelector": {"matchLabels": {"trusted": "true"}}}]}]}`)
	expect("Namespace", "Namespace", "far/b.example.com NAMESPACE", "near/a.example.com NAMESPACE")
	w.apply(trusted)
	expect("Namespace", "Public", "far/b.example.com PUBLIC", "near/a.example.com NAMESPACE")
	w.keep(`{"defaultVisibility": "NONE", "policies": [{"visibility": "NAMESPACE", "matchingRules": [{"namespaceSelector": {"matchLabels": {"trusted": "true"}}}]}]}`)
	expect("None", "Namespace", "far/b.example.com NAMESPACE")
	w.remove(trusted)
	expect("None", "None")
	w.keep(`null`)
	expect("", "", "far/b.example.com PUBLIC", "near/a.example.com PUBLIC")
}

const routesAbroad = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: near}
spec: {selector: {istio: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: in, namespace: near}
spec: {hosts: ["*"], gateways: [gw], http: [{route: [{destination: {host: b.example.com}}]}]}
---
`

func shopRoute(namespace, host string) string {
	return `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: ` + namespace + `}
spec: {hosts: [shop], http: [{route: [{destination: {host: ` + host + `}}]}]}
---
`
}

// A waypoint knows what its namespace may know; gateways and clients of gRPC keep to it only where the mesh says so.
func TestWhoSeesEntries(t *testing.T) {
	const router, grpc = "router/near/istio=gw", "grpc/near"
	w := newWorld(t, gatewayYAML("near", "wp"), gatewayYAML("far", "wp"),
		serviceYAML("near", "shop", "10.96.0.1", "istio.io/use-waypoint: wp"), serviceYAML("far", "shop", "10.96.0.2", "istio.io/use-waypoint: wp"),
		entryYAML("far", "b", "b.example.com", ""), routesAbroad, shopRoute("near", "b.example.com"), shopRoute("far", "b.example.com"))
	scopes := []string{"waypoint/near/wp", "waypoint/far/wp", router, grpc}
	for _, s := range scopes {
		w.r.Scopes().Open(s)
	}
	for _, c := range []struct {
		visibility string
		knows      [4]bool
	}{
		{`null`, [...]bool{true, true, true, true}},
		{`{"defaultVisibility": "NAMESPACE"}`, [...]bool{false, true, true, true}},
		{`{"defaultVisibility": "NAMESPACE", "applyToSidecars": true}`, [...]bool{false, true, false, false}},
		{`{"defaultVisibility": "NONE"}`, [4]bool{}},
		{`{"defaultVisibility": "PUBLIC", "applyToSidecars": true}`, [...]bool{true, true, true, true}},
	} {
		w.keep(c.visibility)
		for i, s := range scopes {
			if _, got := w.has[s]["cds outbound|80||b.example.com"]; got != c.knows[i] {
				t.Errorf("%s: %s knows b.example.com: %v", c.visibility, s, got)
			}
		}
	}
}

// Of two entries for a host, the one that a waypoint may know counts.
func TestEntriesOfOneHost(t *testing.T) {
	w := newWorld(t, entryYAML("far", "c", "same.example.com", ""), entryYAML("other", "d", "same.example.com", ""))
	w.keep(`{"defaultVisibility": "NAMESPACE", "policies": [{"visibility": "PUBLIC", "matchingRules": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}]}]}`)
	for namespace, want := range map[string]string{"near": "other", "far": "far", "other": "other"} {
		w.apply(gatewayYAML(namespace, "wp"), serviceYAML(namespace, "shop", "10.96.0.1", "istio.io/use-waypoint: wp"), shopRoute(namespace, "same.example.com"))
		w.r.Scopes().Open("waypoint/" + namespace + "/wp")
		if content := w.has["waypoint/"+namespace+"/wp"]["cds outbound|80||same.example.com"]; !strings.Contains(content, want) {
			t.Errorf("from %s: same.example.com is not that of %s: %q", namespace, want, content)
		}
	}
}

// An entry that is its namespace's own has no waypoint of another one, and says why; the policies that name it know that it is there.
func TestVisibilityAndWaypoints(t *testing.T) {
	w := newWorld(t, strings.Replace(gatewayYAML("far", "wp"), "protocol: HBONE", "protocol: HBONE, allowedRoutes: {namespaces: {from: All}}", 1),
		entryYAML("near", "a", "a.example.com", "istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: far"),
		entryYAML("far", "b", "b.example.com", "istio.io/use-waypoint: wp"), `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: near, labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: far}}
spec: {hosts: ["*.example.org"], location: MESH_EXTERNAL, resolution: DYNAMIC_DNS, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: near}
spec: {targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: a}], rules: [{}]}
`)
	expect := func(visibility, a, b, wild, policy string) {
		t.Helper()
		w.keep(visibility)
		for name, want := range map[[2]string]string{{"near", "a"}: a, {"far", "b"}: b, {"near", "wild"}: wild} {
			if _, got := w.applied(name[0], name[1]); got != want {
				t.Errorf("%s: waypoint of %s: %q, want %q", visibility, name, got, want)
			}
		}
		for _, s := range w.r.Statuses() {
			if s.Kind == "AuthorizationPolicy" && !strings.Contains(string(s.Content), policy) {
				t.Errorf("%s: the policy's status is %s, want %s", visibility, s.Content, policy)
			}
		}
	}
	const notReady = ambient.ReasonWaypointIsNotReady // nobody has given the Gateway an address
	expect(`null`, notReady, notReady, notReady, "bound to far/wp")
	expect(`{"defaultVisibility": "NAMESPACE"}`, ambient.ReasonCrossNamespace, notReady, ambient.ReasonCrossNamespace, "AncestorNotBound")
	expect(`{"defaultVisibility": "NONE"}`, "", "", "", "AncestorNotBound")
}
