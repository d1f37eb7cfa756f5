package analyzers_test

import (
	"strings"
	"testing"

	meshapi "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
)

// TestProviders: providers that objects name have to be in the mesh's configuration, and their services in the mesh.
func TestProviders(t *testing.T) {
	t.Parallel()
	const objects = `apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: traces, namespace: istio-system}
spec:
  tracing: [{providers: [{name: zipkin}]}]
  accessLogging: [{providers: [{name: otell}]}]
  metrics: [{providers: [{name: prometheus}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: default}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  action: CUSTOM
  provider: {name: opa}
  rules: [{}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
`
	opa := &meshapi.MeshConfig_ExtensionProvider{Name: "opa", Provider: &meshapi.MeshConfig_ExtensionProvider_EnvoyExtAuthzGrpc{
		EnvoyExtAuthzGrpc: &meshapi.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider{Service: "opa.default.svc.cluster.local", Port: 9191},
	}}
	zipkin := &meshapi.MeshConfig_ExtensionProvider{Name: "zipkin", Provider: &meshapi.MeshConfig_ExtensionProvider_Zipkin{
		Zipkin: &meshapi.MeshConfig_ExtensionProvider_ZipkinTracingProvider{Service: "default/web.default.svc.cluster.local", Port: 9411},
	}}
	for name, c := range map[string]struct {
		mesh *meshapi.MeshConfig
		want []string
	}{
		"all but one": {&meshapi.MeshConfig{ExtensionProviders: []*meshapi.MeshConfig_ExtensionProvider{opa, zipkin}}, []string{
			`Referenced extension provider not found: "otell"`, `Referenced service of extension provider opa not found: "opa.default.svc.cluster.local"`,
		}},
		"none":    {&meshapi.MeshConfig{}, []string{`provider not found: "zipkin"`, `provider not found: "otell"`, `provider not found: "opa"`}},
		"unknown": {nil, nil},
	} {
		in := input(t, true, collect.File{Name: "a.yaml", Data: []byte(objects)})
		in.Mesh = c.mesh
		var found []string
		for _, m := range analyze(t, in) {
			if m.Code == "IST0101" && strings.Contains(m.String(), "provider") {
				found = append(found, m.String())
			}
		}
		all := strings.Join(found, "\n")
		if len(found) != len(c.want) {
			t.Errorf("%s: found\n%s\nwant %q", name, all, c.want)
		}
		for _, want := range c.want {
			if !strings.Contains(all, want) {
				t.Errorf("%s: found\n%s\nwant %q", name, all, want)
			}
		}
	}
}
