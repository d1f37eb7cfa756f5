package describe

import (
	"bytes"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

const limited = `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop%s}
spec: {clusterIP: 10.96.0.7, selector: {app: server}, ports: [{name: http, port: 80}, {name: tcp-db, port: 5432}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.50}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}, {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.51}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edge, namespace: shop}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: server, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: names, namespace: shop}
spec: {parentRefs: [{name: edge, sectionName: tls}], hostnames: [db.example.com], rules: [{backendRefs: [{name: server, port: 5432}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: db, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: server, port: 5432}], rules: [{backendRefs: [{name: server, port: 5432}]}]}
---
apiVersion: policy.isthmus.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: callers, namespace: shop}
spec:
  mode: DryRun
  targetRefs: [{group: "", kind: Service, name: server}]
  limits:
  - {requests: 5, per: Minute, burst: 2, by: [{type: Identity}, {type: Header, name: x-team}], overrides: [{values: [a, b], requests: 50, per: Minute}]}
  - {requests: 100, per: Second, fairShare: [{type: Namespace}]}
---
apiVersion: policy.isthmus.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: outside, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: edge}]
  limits: [{requests: 7, per: Second}]
---
apiVersion: policy.isthmus.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: elsewhere, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: other}]
  limits: [{requests: 9, per: Second}]
`

// TestLimits: a service is described with the rate limits and the routes for connections that are about it, and no others.
func TestLimits(t *testing.T) {
	t.Parallel()
	for label, want := range map[string][]string{
		", labels: {istio.io/use-waypoint: waypoint}": nil,
		"": {"   WARNING: without a waypoint it has no effect: istioctl waypoint apply -n shop --enroll-namespace"},
	} {
		want = append(want, "RateLimitPolicy: callers (dry run: it only counts and logs)",
			"   5 requests a minute, 2 at once for each Identity and Header x-team", "      a, b: 50 requests a minute",
			"   100 requests a second, divided among all by Namespace",
			"RateLimitPolicy: outside of requests by HTTPRoute edge", "   7 requests a second",
			"TCPRoute: db", "TLSRoute: names for db.example.com", "   TLS -> server", "   TCP -> server")
		decoded, problems := kube.Decode("mesh.yaml", []byte(strings.Replace(limited, "%s", label, 1)))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		var objects []kube.Object
		for _, d := range decoded {
			objects = append(objects, d.Object)
		}
		m, err := New(simulate.Settings{}, objects)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := m.Service(&out, "shop", "server"); err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains("\n"+out.String(), "\n"+line+"\n") {
				t.Errorf("%q: no line %q", label, line)
			}
		}
		if strings.Contains(out.String(), "elsewhere") {
			t.Errorf("%q: the limits of another service are told", label)
		}
		if t.Failed() {
			t.Log(out.String())
		}
	}
}
