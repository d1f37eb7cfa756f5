package kube

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

const limitHead = "apiVersion: policy.isthmus.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: a, namespace: ns}\n"

const limitTarget = "targetRefs: [{kind: Service, name: web}]"

// problems are those of one manifest, one a line.
func problems(t *testing.T, manifest string) string {
	t.Helper()
	decoded, errs := Decode("f.yaml", []byte(manifest))
	for _, d := range decoded {
		errs = append(errs, Admit(d.Object)...)
	}
	var out []string
	for _, e := range errs {
		e.File, e.Line = "", 0
		out = append(out, e.Error())
	}
	return strings.Join(out, "\n")
}

func TestRateLimitPolicies(t *testing.T) {
	t.Parallel()
	limits := func(text string) string { return fmt.Sprintf("spec: {%s, limits: [%s]}", limitTarget, text) }
	for _, c := range []struct{ name, spec, want string }{
		{"one that is whole", limits("{name: x, requests: 5, per: Second, burst: 9, by: [{type: Identity}, {type: Header, name: X-User}], overrides: [{values: [a, b], requests: 7, per: Day}]}, {requests: 1, per: Hour, fairShare: [{type: Claim, name: sub}]}"), ""},
		{"routes", "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r, sectionName: s}, {group: gateway.networking.k8s.io, kind: GRPCRoute, name: r}, {group: gateway.networking.k8s.io, kind: Gateway, name: g}, {group: networking.istio.io, kind: ServiceEntry, name: e}, {group: core, kind: Service, name: s}], limits: [{requests: 1, per: Day}]}", ""},
		{"a response", "spec: {" + limitTarget + ", mode: DryRun, maxKeys: 7, limits: [{requests: 1, per: Day}], response: {status: 503, grpcStatus: Unavailable, rateLimitHeaders: true, headers: [{name: x-a, value: \"100%\"}]}}", ""},
		{"nothing", "spec: {}", "spec.targetRefs: required: name a Gateway"},
		{"no limits", "spec: {" + limitTarget + "}", "RateLimitPolicy ns/a: spec.limits: required: without a limit the policy does nothing"},
		{"no requests", limits("{per: Second}"), "spec.limits[0].requests: 0 is not a number of requests: use 1 to 1000000000"},
		{"too many requests", limits("{requests: 4000000000, per: Second}"), "spec.limits[0].requests: 4000000000 is not a number"},
		{"negative", limits("{requests: -1, per: Second}"), "spec.limits"},
		{"another unit", limits("{requests: 1, per: Week}"), `spec.limits[0].per: "Week" is none of Second, Minute, Hour, Day`},
		{"no unit", limits("{requests: 1}"), `spec.limits[0].per: "" is none of`},
		{"an unknown field", limits("{requests: 1, per: Day, unit: Day}"), "spec.limits[0].unit: RateLimitPolicy has no such field"},
		{"a key without name", limits("{requests: 1, per: Day, by: [{type: Header}]}"), "spec.limits[0].by[0].name: required for type Header"},
		{"a key with one too many", limits("{requests: 1, per: Day, by: [{type: Path, name: x}]}"), "spec.limits[0].by[0].name: only keys of the types Header and Claim have a name"},
		{"no name of a header", limits("{requests: 1, per: Day, by: [{type: Header, name: 'a b'}]}"), `spec.limits[0].by[0].name: "a b" is not the name of a header`},
		{"an unknown key", limits("{requests: 1, per: Day, by: [{type: Cookie}]}"), `spec.limits[0].by[0].type: "Cookie" is none of Identity,`},
		{"a key twice", limits("{requests: 1, per: Day, by: [{type: Header, name: x}, {type: Header, name: X}]}"), "spec.limits[0].by[1]: the same key stands there twice"},
		{"too many keys", limits("{requests: 1, per: Day, by: [{type: Path}, {type: Method}, {type: Route}, {type: Identity}]}"), "spec.limits[0].by: at most 3 keys are allowed"},
		{"both ways", limits("{requests: 1, per: Day, by: [{type: Path}], fairShare: [{type: Identity}]}"), "spec.limits[0].fairShare: cannot be combined with by: make two limits of them"},
		{"overrides of nothing", limits("{requests: 1, per: Day, overrides: [{values: [], requests: 1, per: Day}]}"), "spec.limits[0].overrides: are for values of by, which is empty"},
		{"values that do not fit", limits("{requests: 1, per: Day, by: [{type: Path}], overrides: [{values: [a, b], requests: 1, per: Day}]}"), "spec.limits[0].overrides[0].values: has 2 values, by has 1 keys"},
		{"an empty value", limits("{requests: 1, per: Day, by: [{type: Path}], overrides: [{values: [''], requests: 1, per: Day}]}"), "spec.limits[0].overrides[0].values[0]: a value has 1 to 1024 characters"},
		{"values twice", limits("{requests: 1, per: Day, by: [{type: Path}], overrides: [{values: [a], requests: 1, per: Day}, {values: [a], requests: 2, per: Day}]}"), "spec.limits[0].overrides[1].values: these values have a rate already"},
		{"a name twice", limits("{name: x, requests: 1, per: Day}, {name: x, requests: 2, per: Day}"), `spec.limits[1].name: "x" is used twice`},
		{"a foreign target", "spec: {targetRefs: [{kind: Pod, name: p}], limits: [{requests: 1, per: Day}]}", `spec.targetRefs[0].kind: "/Pod" cannot be a target: use Gateway`},
		{"a section of a service", "spec: {targetRefs: [{kind: Service, name: p, sectionName: http}], limits: [{requests: 1, per: Day}]}", "spec.targetRefs[0].sectionName: only rules of an HTTPRoute or a GRPCRoute can be named"},
		{"no name", "spec: {targetRefs: [{kind: Service, name: ''}], limits: [{requests: 1, per: Day}]}", `spec.targetRefs[0].name: "" is not the name of an object`},
		{"another mode", "spec: {" + limitTarget + ", mode: Shadow, limits: [{requests: 1, per: Day}]}", `spec.mode: "Shadow" is none of Enforce, DryRun`},
		{"no refusal", "spec: {" + limitTarget + ", limits: [{requests: 1, per: Day}], response: {status: 200}}", "spec.response.status: 200 is not the status of a refusal"},
		{"a status that nobody has", "spec: {" + limitTarget + ", limits: [{requests: 1, per: Day}], response: {status: 430}}", "spec.response.status: 430 is not the status of a refusal: use a registered one"},
		{"two lines", "spec: {" + limitTarget + ", limits: [{requests: 1, per: Day}], response: {headers: [{name: a, value: \"x\\r\\ny: z\"}]}}", "spec.response.headers[0].value: a value is one line"},
		{"framing", "spec: {" + limitTarget + ", limits: [{requests: 1, per: Day}], response: {headers: [{name: Content-Length, value: '1'}]}}", "spec.response.headers[0].name: Content-Length frames the message"},
		{"too many keys to remember", "spec: {" + limitTarget + ", maxKeys: 1000000, limits: [{requests: 1, per: Day}]}", "spec.maxKeys: 1000000 is too much: use at most 100000"},
	} {
		got := problems(t, limitHead+c.spec)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestExamples: what the documentation shows is right.
func TestExamples(t *testing.T) {
	t.Parallel()
	found := 0
	for _, example := range examples(t, "../../docs/rate-limits.md") {
		if got := problems(t, example); got != "" {
			t.Errorf("%s\n%s", got, example)
		}
		decoded, _ := Decode("", []byte(example))
		for _, d := range decoded {
			if _, ok := d.Object.(*policyapi.RateLimitPolicy); ok {
				found++
			}
		}
	}
	if found < 3 {
		t.Errorf("%d policies", found)
	}
}

// examples are the manifests in a page.
func examples(t *testing.T, file string) (out []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(data), "```")
	for i := 1; i < len(parts); i += 2 {
		if text, ok := strings.CutPrefix(parts[i], "yaml\n"); ok {
			out = append(out, text)
		}
	}
	return out
}

// FuzzRateLimitPolicy: what is decoded and found right holds what the translation relies on, and nothing brings it down.
func FuzzRateLimitPolicy(f *testing.F) {
	f.Add("spec: {targetRefs: [{kind: Service, name: a}], limits: [{requests: 5, per: Second, by: [{type: Header, name: x}], overrides: [{values: [v], requests: 1, per: Day}]}]}")
	f.Add("spec: {targetRefs: [{kind: Service, name: a}], mode: DryRun, limits: [{requests: 1, per: Hour, fairShare: [{type: Identity}]}], response: {status: 503, headers: [{name: a, value: b}]}}")
	f.Fuzz(func(t *testing.T, spec string) {
		decoded, _ := Decode("", []byte(limitHead+spec))
		for _, d := range decoded {
			p, ok := d.Object.(*policyapi.RateLimitPolicy)
			if !ok || len(Validate(p)) > 0 {
				continue
			}
			for _, l := range p.Spec.Limits {
				if l.Requests == 0 || l.Per.Duration() == 0 || len(l.By) > maxKeyTypes {
					t.Fatalf("%+v", l)
				}
				for _, o := range l.Overrides {
					if len(o.Values) != len(l.By) || o.Requests == 0 || o.Per.Duration() == 0 {
						t.Fatalf("%+v", o)
					}
				}
			}
		}
	})
}
