package crdschema

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/operator/crds"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

func every() *Schemas { return New(crds.Istio, crds.Isthmus, crds.GatewayAPI) }

// check is what is wrong with the objects of a file: field and reason.
func check(t *testing.T, s *Schemas, manifest string) (out []string) {
	t.Helper()
	decoded, errs := kube.Decode("f.yaml", []byte(manifest))
	if len(errs) > 0 || len(decoded) == 0 {
		t.Fatalf("%d objects, errors %v", len(decoded), errs)
	}
	for _, d := range decoded {
		for _, e := range s.Check(d) {
			if e.Kind != d.GVK.Kind || e.Name != d.Object.GetName() || e.Namespace != d.Object.GetNamespace() || e.Line != d.Line {
				t.Errorf("%v is not about %s", e, d.Name())
			}
			out = append(out, e.Field+": "+e.Reason)
		}
	}
	return out
}

// Each definition can be read, in all its versions, and each kind of the mesh's groups that is read has one.
func TestEveryDefinition(t *testing.T) {
	t.Parallel()
	s := every()
	for kind := range s.documents {
		if _, err := s.version(kind, "v1"); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if len(s.versions[kind]) == 0 {
			t.Errorf("%s has no versions", kind)
		}
		for name, v := range s.versions[kind] {
			if v.structural == nil || v.values == nil {
				t.Errorf("%s %s has no schema", kind, name)
			}
		}
	}
	for _, k := range kube.Kinds() {
		group := k.GVK.Group
		if _, defined := s.documents[k.GVK.GroupKind()]; !defined && (group == "gateway.networking.k8s.io" || strings.HasSuffix(group, ".istio.io")) {
			t.Errorf("%s has no definition", k.GVK)
		}
	}
}

func route(rule string) string {
	return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: gw}], rules: [` + rule + `]}
`
}

func gateway(listeners string) string {
	return `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec: {gatewayClassName: istio, listeners: [` + listeners + `]}
`
}

func entry(fields string) string {
	return `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: shop}
spec: {hosts: [a.example.com], ` + fields + `}
`
}

func TestCheck(t *testing.T) {
	t.Parallel()
	s := every()
	for name, c := range map[string]struct {
		manifest string
		want     []string // how each problem begins
	}{
		"a good route":   {route(`{matches: [{path: {type: PathPrefix, value: /a}}], backendRefs: [{name: web, port: 80}], timeouts: {request: 10s}}`), nil},
		"an older one":   {strings.Replace(route(`{backendRefs: [{name: web, port: 80}]}`), "/v1\n", "/v1beta1\n", 1), nil},
		"a good gateway": {gateway(`{name: a, port: 80, protocol: HTTP}, {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}`), nil},
		"its status is not looked at": {gateway(`{name: a, port: 80, protocol: HTTP}`) + `status: {listeners: [{name: a, attachedRoutes: 1, supportedKinds: [], conditions: []}], addresses: [{type: IPAddress, value: 192.0.2.1}]}
`, nil},
		"a number":      {route(`{backendRefs: [{name: web, port: 99999}]}`), []string{"spec.rules[0].backendRefs[0].port: Invalid value: 99999: should be less than or equal to 65535"}},
		"a name":        {route(`{matches: [{path: {type: Prefix, value: /}}]}`), []string{`spec.rules[0].matches[0].path.type: Unsupported value: "Prefix": supported values: "Exact", `}},
		"a pattern":     {route(`{timeouts: {request: 1.5s}}`), []string{`spec.rules[0].timeouts.request: Invalid value: "1.5s": `}},
		"missing":       {strings.Replace(gateway(""), "gatewayClassName: istio, ", "", 1), []string{"spec.gatewayClassName: Required value", "spec.listeners: Invalid value: 0: "}},
		"too many":      {route(strings.Repeat(`{}, `, 17)), []string{"spec.rules: Too many: 17: "}},
		"twice":         {gateway(`{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}`), []string{`spec.listeners[1]: Duplicate value: {"name":"a"}`}},
		"a rule":        {route(`{filters: [{type: RequestRedirect}]}`), []string{"spec.rules[0].filters[0]: Invalid value: "}},
		"a rule, above": {gateway(`{name: a, port: 443, protocol: TCP, hostname: a.example.com}`), []string{"spec.listeners: Invalid value: "}},
		"a rule that needs a default": {
			route(`{matches: [{path: {value: no-slash}}]}`), // the type is PathPrefix then
			[]string{"spec.rules[0].matches[0].path: Invalid value: "},
		},
		"a kind of Istio's": {entry(`ports: [{number: 80, name: a}, {number: 81, name: a}]`), []string{`spec.ports[1]: Duplicate value: {"name":"a"}`}},
		"a rule of Istio's": {
			entry(`ports: [{number: 80, name: a}], workloadSelector: {labels: {a: b}}, endpoints: [{address: 192.0.2.1}]`),
			[]string{"spec: Invalid value: only one of WorkloadSelector or Endpoints can be set"},
		},
		"no definition": {"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n", nil},
	} {
		got := check(t, s, c.manifest)
		if len(got) < len(c.want) || len(c.want) == 0 && len(got) > 0 {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
			continue
		}
		for _, want := range c.want {
			if !slices.ContainsFunc(got, func(have string) bool { return strings.HasPrefix(have, want) }) {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	}
}

// Whatever an object is made of, it is judged.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(route(`{matches: [{path: {type: Exact, value: /}}]}`)))
	f.Add([]byte(gateway(`{name: a, port: 80, protocol: HTTP}`)))
	s := every()
	f.Fuzz(func(_ *testing.T, data []byte) {
		decoded, _ := kube.Decode("f.yaml", data)
		for _, d := range decoded {
			s.Check(d)
		}
	})
}
