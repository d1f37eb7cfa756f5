package main

import (
	"regexp"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestParseScenario(t *testing.T) {
	s, err := parseScenario("x", []byte(`
# What it is about.
env: {B: "2", A: "1"}
---
step: one
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: a}
spec: {containers: [{name: c, ports: [{containerPort: 1}]}]}
status: {podIPs: [{ip: 10.0.0.1}]}
---
step: two
---
{patch: Pod/a/p, with: {status: {phase: Failed}}}
---
delete: [Pod/a/p, Namespace/a]
`))
	if err != nil {
		t.Fatal(err)
	}
	if s.environment() != "A=1 B=2" || len(s.steps) != 2 || len(s.steps[0].actions) != 1 || len(s.steps[1].actions) != 3 {
		t.Fatalf("got %+v", s)
	}
	p := s.steps[0].actions[0].apply.Object
	image, _, _ := unstructured.NestedSlice(p, "spec", "containers")
	phase, _, _ := unstructured.NestedString(p, "status", "phase")
	ip, _, _ := unstructured.NestedString(p, "status", "podIP")
	conditions, _, _ := unstructured.NestedSlice(p, "status", "conditions")
	if len(image) != 1 || image[0].(map[string]any)["image"] == nil || phase != "Running" || ip != "10.0.0.1" || len(conditions) != 1 {
		t.Errorf("the pod is %v", p)
	}
	if a := s.steps[1].actions; a[0].patch != "Pod/a/p" || a[0].with["status"] == nil || a[1].remove != "Pod/a/p" || a[2].remove != "Namespace/a" {
		t.Errorf("the second step is %+v", a)
	}
	for name, bad := range map[string]string{
		"nothing":                    "",
		"an object before any step":  "{apiVersion: v1, kind: Pod}\n---\nstep: one",
		"a document that is neither": "step: one\n---\n{stepp: two}",
		"no YAML":                    "step: [",
	} {
		if _, err := parseScenario("x", []byte(bad)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// The scenarios can be read, and the table says of what differs as much as it has to.
func TestScenarios(t *testing.T) {
	scenarios, err := loadScenarios("../../../tests/wds", regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	same, others := withSameEnvironment(scenarios)
	if len(same)+len(others) != len(scenarios) || len(others) == 0 {
		t.Errorf("%d scenarios of %d share the environment of the first", len(same), len(scenarios))
	}
	if _, err := loadIntended("../../../tests/wds/intended/differences.yaml", "../../../docs/differences.md"); err != nil {
		t.Error(err)
	}
	if _, err := loadScenarios("../../../tests/wds", regexp.MustCompile("no-such")); err == nil {
		t.Error("no scenario is taken")
	}
}
