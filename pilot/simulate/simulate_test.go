package simulate

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

const manifests = `
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template: {metadata: {labels: {app: server}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: shop}
spec:
  hosts: [server]
  http:
  - {name: first, match: [{uri: {exact: /a}}, {uri: {exact: /b}}], route: [{destination: {host: server}}]}
  - {route: [{destination: {host: server}}]}
`

func objects(t *testing.T) (out []kube.Object) {
	t.Helper()
	decoded, problems := kube.Decode("f", []byte(manifests))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, d := range decoded {
		out = append(out, d.Object)
	}
	return out
}

// TestProxy: manifests that no cluster has seen become what a waypoint is sent, the same each time.
func TestProxy(t *testing.T) {
	t.Parallel()
	completer := NewCompleter()
	var before []string
	for range 2 {
		done := completer.Complete(objects(t))
		m, err := New(Settings{Allocate: true}, Mark(done.Objects))
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Workloads()) != 3 || len(m.Services()) != 2 || len(done.Notes) != 1 {
			t.Errorf("%d workloads, %d services, notes %q", len(m.Workloads()), len(m.Services()), done.Notes)
		}
		var names []string
		waypoint := Proxy{Kind: Waypoint, Namespace: "shop", Gateway: "waypoint"}
		for _, r := range m.Proxy(waypoint) {
			names = append(names, r.Type[strings.LastIndexByte(r.Type, '.')+1:]+" "+r.Name+" "+string(r.Any.GetValue()))
		}
		if len(names) == 0 || before != nil && !slices.Equal(before, names) {
			t.Error("the resources differ, or there are none")
		}
		before = names
		m.Release(waypoint)
		if len(m.Proxy(Proxy{Kind: Waypoint, Namespace: "shop", Gateway: "other"})) > 0 {
			t.Error("a waypoint that is not there is sent something")
		}
	}
}

func TestUnmark(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Place{
		"first␟shop/server␟http[0]␟.␟match[1]␟": {"first", "shop/server", "spec.http[0]", "spec.http[0].match[1]"},
		"␟shop/server␟http[1]␟":                 {"", "shop/server", "spec.http[1]", ""},
		"default.reviews.0":                     {Name: "default.reviews.0"},
	} {
		got, ok := Unmark(name)
		if got != want || ok != (want.Object != "") {
			t.Errorf("%q: %+v, %v", name, got, ok)
		}
	}
}
