package app

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const judged = `apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: patch, namespace: default}
spec: {configPatches: []}
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: names, namespace: default}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: default}
spec: {accessLogging: [{disabled: true}]}
---
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata: {name: traces, namespace: default}
spec: {tracing: [{providers: [{name: nothing}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewer, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: reviews}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nowhere, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: nothing}]
  rules: [{}]
`

// Each object's status is in a file of its own, and goes with the object.
func TestStatusFiles(t *testing.T) {
	dir, statuses := t.TempDir(), t.TempDir()
	write(t, dir, "mesh.yaml", waypointMesh)
	write(t, dir, "judged.yaml", judged)
	addr := startWith(t, dir, func(c *Config) { c.StatusDir = statuses })
	file := func(path string) string {
		data, _ := os.ReadFile(filepath.Join(statuses, path))
		return string(data)
	}
	for path, holds := range map[string][]string{
		"service/default/reviews.json":                               {"istio.io/WaypointBound", "WaypointAccepted", `"True"`},
		"envoyfilter.networking.istio.io/default/patch.json":         {`"False"`, "EnvoyFilter"},
		"udproute.gateway.networking.k8s.io/default/names.json":      {`"False"`, "UDPRoute", `"edge"`, "istio.io/gateway-controller"},
		"telemetry.telemetry.istio.io/default/logs.json":             {`"True"`, "Accepted"},
		"telemetry.telemetry.istio.io/default/traces.json":           {`"False"`, "spec.tracing[0].providers[0]", "has no provider"},
		"authorizationpolicy.security.istio.io/default/viewer.json":  {"WaypointAccepted", "default/reviews-wp"},
		"authorizationpolicy.security.istio.io/default/nowhere.json": {"TargetNotFound", "nothing"},
		"virtualservice.networking.istio.io/default/reviews.json":    {"Accepted", `"True"`},
		"destinationrule.networking.istio.io/default/reviews.json":   {"Accepted", `"True"`},
		"gateway.gateway.networking.k8s.io/default/reviews-wp.json":  {"Accepted", "Programmed"},
	} {
		until(t, path, func() bool {
			for _, part := range holds {
				if !strings.Contains(file(path), part) {
					return false
				}
			}
			return true
		})
	}
	page := func(path string) string {
		r, err := http.Get("http://" + addr.Monitoring.String() + path)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return string(body)
	}
	if got := page("/debug/statusz"); !strings.Contains(got, "EnvoyFilter") || !strings.Contains(got, "lastTransitionTime") {
		t.Errorf("statusz: %s", got)
	}
	if got := page("/debug/problemz"); strings.TrimSpace(got) != "{}" {
		t.Errorf("problemz without proxies: %s", got)
	}
	if err := os.Remove(filepath.Join(dir, "judged.yaml")); err != nil {
		t.Fatal(err)
	}
	until(t, "the status of what is gone is gone", func() bool { return file("envoyfilter.networking.istio.io/default/patch.json") == "" })
}
