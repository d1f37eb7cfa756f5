package analyzers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/analyzers"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
)

// large is a mesh of 5000 pods: 50 namespaces with a waypoint each, 10 services, routes and policies in each.
func large(t testing.TB) analysis.Input {
	t.Helper()
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, "---\n"+format, args...) }
	for n := range 50 {
		ns := fmt.Sprintf("ns-%d", n)
		add("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}\n", ns)
		add("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: waypoint, namespace: %s}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n", ns)
		for s := range 10 {
			app := fmt.Sprintf("app-%d", s)
			add("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: %s}\nspec: {selector: {app: %s}, ports: [{name: http, port: 80}]}\n", app, ns, app)
			add("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s, namespace: %s}\nspec: {hosts: [%s], http: [{route: [{destination: {host: %s, subset: v1}}]}]}\n", app, ns, app, app)
			add("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s, namespace: %s}\nspec: {host: %s, subsets: [{name: v1, labels: {version: v1}}]}\n", app, ns, app)
			add("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: %s}\nspec: {selector: {matchLabels: {app: %s}}, rules: [{from: [{source: {principals: [cluster.local/ns/%s/sa/waypoint]}}]}]}\n", app, ns, app, ns)
			for p := range 10 {
				add("apiVersion: v1\nkind: Pod\nmetadata: {name: %s-%d, namespace: %s, labels: {app: %s, version: v1}}\nspec: {containers: [{name: app, image: app}]}\n", app, p, ns, app)
			}
		}
	}
	in := analysis.Input{Resources: collect.Assumed("istio-system"), Live: true}
	parsed := collect.Parse(collect.File{Name: "large.yaml", Data: []byte(b.String())}, "default", nil)
	if len(parsed.Broken) > 0 {
		t.Fatal(parsed.Broken[0])
	}
	collect.Overlay(&in, parsed)
	return in
}

// BenchmarkLarge is one analysis of 5000 pods, without reading them.
func BenchmarkLarge(b *testing.B) {
	in := large(b)
	for b.Loop() {
		found, err := analysis.Run(b.Context(), analysis.NewSnapshot(in), analyzers.All())
		if err != nil || len(found) > 0 {
			b.Fatalf("%v, found %d, such as %v", err, len(found), found[:min(len(found), 3)])
		}
	}
}
