package predict

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
)

const base = "../why/testdata/base.yaml"

func world(t *testing.T, files ...string) *why.World {
	t.Helper()
	w, err := why.ReadFiles(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "change.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPredict(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		base     []string
		change   string
		remove   bool
		requests string
		want     []string
		none     bool
	}{
		"a policy denies": {
			base: []string{"../why/testdata/waypoint.yaml", base},
			change: `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: get, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: server}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-post, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: server}]
  action: DENY
  rules: [{to: [{operation: {methods: [POST]}}]}]
`,
			want: []string{"waypoint/shop/waypoint\n  ~ Listener main_internal", "→ server.shop:80 POST /: allowed → denied (403)", "AuthorizationPolicy shop/no-post spec.rules[0]"},
		},
		"nothing of it matters": {
			base:   []string{base},
			change: "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a, namespace: shop}, spec: {host: server}}",
			want:   []string{"No proxy is sent anything else; 0 requests fare as before."}, none: true,
		},
		"a waypoint goes": {
			base:   []string{"../why/testdata/waypoint.yaml", base},
			change: "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: m, port: 15008, protocol: HBONE}]}}",
			remove: true,
			want:   []string{"  - Listener main_internal", "service.waypoint: {\"hboneMtlsPort\":15008,\"hostname\":{\"hostname\":\"waypoint.shop.svc.cluster.local\"", "allowed → broken", "waypoint shop/waypoint, which the label asks for, is not there"},
		},
		"a namespace leaves the mesh": {
			base:     []string{base},
			change:   "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
			requests: "deploy/client.shop server.shop GET /\ndeploy/client.plain server.shop",
			want:     []string{"workload.tunnelProtocol: \"HBONE\" → (none)", "All 2 requests fare as before."},
		},
		"a route is added": {
			base: []string{"../why/testdata/waypoint.yaml", base},
			change: `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: server, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: server}]
  rules: [{matches: [{path: {value: /api}}], backendRefs: [{name: server, port: 80}]}]
`,
			want: []string{"~ RouteConfiguration inbound-vip|80|http|server.shop.svc.cluster.local", "GET /: allowed → broken (404)", "GET /api: allowed, but otherwise\n      route: the default: no HTTPRoute or VirtualService is about this → HTTPRoute shop/server, rules[0]"},
		},
		"a NetworkPolicy": {
			base:   []string{base},
			change: "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: none, namespace: shop}, spec: {podSelector: {}}}",
			want:   []string{"allowed → denied", "NetworkPolicy shop/none does not let TCP port 15008 into the pod"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := world(t, test.base...)
			var requests []why.Question
			if test.requests != "" {
				var err error
				if requests, err = Parse([]byte(test.requests), ""); err != nil {
					t.Fatal(err)
				}
			}
			p, err := Predict(before, Apply(before, world(t, written(t, test.change)), test.remove), why.Options{}, requests)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			p.Write(&out)
			for _, s := range test.want {
				if !strings.Contains(out.String(), s) {
					t.Errorf("it does not say %q", s)
				}
			}
			if p.Changes() == test.none {
				t.Errorf("changes: %v", p.Changes())
			}
			if t.Failed() {
				t.Log("\n" + out.String())
			}
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"# a comment\ndeploy/a b:80 GET /x end-user: jason\n\noutside c": 2,
		"- {from: a, to: b, method: GET, path: /, headers: ['x: y']}":    1,
		`[{"from": "a", "to": "b"}]`:                                     1,
		"a":                                                              -1,
		"a b GET x":                                                      -1,
		"a (b c)":                                                        -1,
		"- {from: a}":                                                    -1,
		"- {from: a, to: b, mehtod: GET}":                                -1,
	} {
		got, err := Parse([]byte(text), "n")
		if (err != nil) != (want < 0) || err == nil && len(got) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestMany: a big mesh is compared without an error, and derived requests are bounded.
func TestMany(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 70 {
		n := string(rune('a'+i%26)) + string(rune('a'+i/26))
		text.WriteString("---\n{apiVersion: v1, kind: Service, metadata: {name: " + n + "}, spec: {selector: {app: " + n + "}, ports: [{name: http, port: 80}]}}\n")
		text.WriteString("---\n{apiVersion: v1, kind: Pod, metadata: {name: " + n + ", labels: {app: " + n + "}}, spec: {serviceAccountName: " + n + ", containers: [{name: a, image: a}]}}\n")
	}
	before := world(t, written(t, text.String()))
	change := world(t, written(t, "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}"))
	p, err := Predict(before, Apply(before, change, false), why.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Asked > budget || len(p.Proxies) != 1 || len(p.Proxies[0].Resources) < 70 {
		t.Error(p.Asked, p.Proxies)
	}
}
