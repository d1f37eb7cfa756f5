package deploy

import (
	"testing"

	"sigs.k8s.io/yaml"
)

// What the API server fills in is no drift; what somebody else has changed is.
func TestCovers(t *testing.T) {
	for name, c := range map[string]struct {
		have, want string
		covers     bool
	}{
		"the same":                {"{a: 1, b: [{c: x}]}", "{a: 1, b: [{c: x}]}", true},
		"filled in":               {"{a: 1, b: [{c: x, d: y}], e: z}", "{a: 1, b: [{c: x}]}", true},
		"nothing is asked for":    {"{}", "{a: {}, b: [], c: null}", true},
		"another value":           {"{a: 2}", "{a: 1}", false},
		"missing":                 {"{}", "{a: 1}", false},
		"an element more":         {"{a: [1, 2]}", "{a: [1]}", false},
		"an element in the depth": {"{a: [{b: {c: 1}}]}", "{a: [{b: {c: 2}}]}", false},
		"another type":            {"{a: x}", "{a: {b: c}}", false},
	} {
		var have, want any
		if err := yaml.Unmarshal([]byte(c.have), &have); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if got := covers(have, want); got != c.covers {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestServiceName(t *testing.T) {
	r := &run{Controller: &Controller{cfg: Config{Domain: "cluster.local"}}}
	for host, want := range map[string]string{
		"edge": "ns/edge", "edge.other.svc.cluster.local": "other/edge", "edge.example.org": "", "a.b.c.svc.cluster.local": "", "edge.svc.cluster.local": "",
	} {
		got := ""
		if name, namespace, ok := r.serviceName(host, "ns"); ok {
			got = namespace + "/" + name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}
