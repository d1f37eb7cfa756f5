package analyzers_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
)

const entries = `apiVersion: v1
kind: Namespace
metadata: {name: team, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: egress, namespace: infra}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: team, labels: {istio.io/use-waypoint: egress, istio.io/use-waypoint-namespace: infra}}
spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
`

// TestEntryVisibility: what meshConfig.serviceEntryVisibility does to entries is told where it is not what they ask for.
func TestEntryVisibility(t *testing.T) {
	t.Parallel()
	for mesh, want := range map[string]string{
		"{}": "",
		"serviceEntryVisibility: {defaultVisibility: PUBLIC}":    "",
		"serviceEntryVisibility: {defaultVisibility: NAMESPACE}": "waypoint infra/egress is of another namespace, and meshConfig.serviceEntryVisibility lets only namespace team know this ServiceEntry",
		"serviceEntryVisibility: {defaultVisibility: NONE}":      "the visibility NONE: no proxy is told of it",
		"serviceEntryVisibility: {policies: [{visibility: NONE, matchingRules: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}]}": "",
	} {
		in := input(t, false, collect.File{Name: "entries.yaml", Data: []byte(entries)})
		var err error
		if in.Mesh, err = collect.MeshConfig([]byte(mesh)); err != nil {
			t.Fatal(err)
		}
		found := analyze(t, in)
		if got := lines(found); want == "" && got != "" || !strings.Contains(got, want) || len(found) > 1 {
			t.Errorf("%s: found\n%swant %q", mesh, got, want)
		}
		for _, m := range found {
			if m.Code != analysis.IneffectivePolicy {
				t.Errorf("%s: %v", mesh, m)
			}
		}
	}
	for mesh, want := range map[string]string{
		"serviceEntryVisibility: NAMESPACE":                       "write serviceEntryVisibility: {defaultVisibility: NAMESPACE}",
		"serviceEntryVisibility: {defaultVisibility: NAMSPACE}":   "serviceEntryVisibility.defaultVisibility",
		"serviceEntryVisibility: {policies: [{visbility: NONE}]}": "serviceEntryVisibility.policies[0].visbility",
	} {
		if _, err := collect.MeshConfig([]byte(mesh)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", mesh, err, want)
		}
	}
}
