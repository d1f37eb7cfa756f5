package kube

import (
	"encoding/json"
	"strings"
	"testing"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/yaml"
)

func served(t *testing.T, manifest string) (Object, string) {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	o, errs := DecodeServed(raw)
	var out []string
	for _, e := range errs {
		text := e.Error()
		if e.Warning {
			text = "warning: " + text
		}
		out = append(out, text)
	}
	return o, strings.Join(out, "\n")
}

func TestServedObjectsMayHaveUnknownFields(t *testing.T) {
	const route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: ns}\n"
	for _, c := range []struct {
		name, manifest, want string
		usable               bool
	}{
		{"unknown in a message", policyHead + "spec: {rules: [{from: [{source: {principals: [x], future: [y]}}]}]}", "warning: AuthorizationPolicy ns/a: spec.rules[0].from[0].source.future: Source has no such field in this version of the mesh; it is ignored", true},
		{"unknown in a struct", route + "spec: {rules: [{future: 1}]}", "warning: HTTPRoute ns/a: spec.rules[0].future: HTTPRoute has no such field in this version of the mesh; it is ignored", true},
		{"unknown value", policyHead + "spec: {action: BLOCK, future: 1}", "spec.action: \"BLOCK\" is not one of", false},
		{"wrong type", route + "spec: {rules: 1}", "HTTPRoute ns/a: spec.rules", false},
		{"duration", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {http: [{timeout: 1m30s, future: 1}]}", "warning: VirtualService default/a: spec.http[0].future", true},
		{"fine", peerHead + "spec: {mtls: {mode: STRICT}}", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, got := served(t, c.manifest)
			if !strings.Contains(got, c.want) || c.want == "" && got != "" {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if (o != nil) != c.usable {
				t.Errorf("object: %v", o)
			}
		})
	}
	o, _ := served(t, policyHead+"spec: {rules: [{from: [{source: {principals: [x], future: [y]}}]}]}")
	if p := o.(*securityv1.AuthorizationPolicy); p.Spec.GetRules()[0].GetFrom()[0].GetSource().GetPrincipals()[0] != "x" {
		t.Errorf("lost what is known: %v", p)
	}
}

func FuzzDecodeServed(f *testing.F) {
	for _, s := range []string{serviceHead, policyHead + "spec: {action: DENY, x: 1}", peerHead} {
		raw, err := yaml.YAMLToJSON([]byte(s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, errs := DecodeServed(data)
		if o == nil && len(errs) == 0 && json.Valid(data) && strings.TrimSpace(string(data)) != "null" && !strings.Contains(string(data), "items") {
			t.Error("neither an object nor an error")
		}
	})
}
