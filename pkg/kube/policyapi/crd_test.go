package policyapi_test

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// node is a part of a schema.
type node struct {
	Type       string          `json:"type"`
	Enum       []string        `json:"enum"`
	Required   []string        `json:"required"`
	Properties map[string]node `json:"properties"`
	Items      *node           `json:"items"`
}

// fields are those of a Go type by their names in JSON, those of embedded structs among them.
func fields(t reflect.Type) map[string]reflect.StructField {
	out := map[string]reflect.StructField{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options == "inline" && name == "" {
			for k, v := range fields(f.Type) {
				out[k] = v
			}
			continue
		}
		out[name] = f
	}
	return out
}

func compare(t *testing.T, at string, schema node, typ reflect.Type) {
	t.Helper()
	switch typ.Kind() {
	case reflect.Slice:
		if schema.Type != "array" || schema.Items == nil {
			t.Errorf("%s is %q, and a list in Go", at, schema.Type)
			return
		}
		compare(t, at+"[]", *schema.Items, typ.Elem())
	case reflect.Struct:
		if typ.PkgPath() != reflect.TypeFor[policyapi.Limit]().PkgPath() {
			return // of Kubernetes
		}
		have := fields(typ)
		for name, f := range have {
			s, ok := schema.Properties[name]
			if !ok {
				t.Errorf("%s.%s is not in the definition", at, name)
				continue
			}
			compare(t, at+"."+name, s, f.Type)
			if optional := strings.Contains(f.Tag.Get("json"), ",omit"); optional == slices.Contains(schema.Required, name) {
				t.Errorf("%s.%s: required in one place, and not in the other", at, name)
			}
		}
		for name := range schema.Properties {
			if _, ok := have[name]; !ok {
				t.Errorf("%s.%s is not in the Go type", at, name)
			}
		}
	case reflect.String:
		if schema.Type != "string" {
			t.Errorf("%s is %q, and a string in Go", at, schema.Type)
		}
		want := map[reflect.Type][]string{
			reflect.TypeFor[policyapi.Unit](): policyapi.Units(), reflect.TypeFor[policyapi.KeyType](): policyapi.KeyTypes(),
			reflect.TypeFor[policyapi.Mode]():       {string(policyapi.Enforce), string(policyapi.DryRun)},
			reflect.TypeFor[policyapi.GRPCStatus](): {string(policyapi.ResourceExhausted), string(policyapi.Unavailable)},
		}[typ]
		if want != nil && !slices.Equal(schema.Enum, want) {
			t.Errorf("%s is one of %v, in Go of %v", at, schema.Enum, want)
		}
	case reflect.Bool:
		if schema.Type != "boolean" {
			t.Errorf("%s is %q, and a bool in Go", at, schema.Type)
		}
	case reflect.Uint32, reflect.Int64:
		if schema.Type != "integer" {
			t.Errorf("%s is %q, and a number in Go", at, schema.Type)
		}
	default:
		t.Errorf("%s is a %s", at, typ)
	}
}

// TestDefinitionIsThatOfTheType: what an API server takes is what is decoded, and the other way round.
func TestDefinitionIsThatOfTheType(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../../operator/crds/isthmus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Group string `json:"group"`
			Names struct {
				Kind string `json:"kind"`
			} `json:"names"`
			Versions []struct {
				Name   string `json:"name"`
				Schema struct {
					V3 node `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(data, &crd); err != nil {
		t.Fatal(err)
	}
	v := crd.Spec.Versions[0]
	if crd.Spec.Group != policyapi.Group || v.Name != policyapi.Version || crd.Spec.Names.Kind != policyapi.KindRateLimitPolicy {
		t.Errorf("%s/%s %s", crd.Spec.Group, v.Name, crd.Spec.Names.Kind)
	}
	compare(t, "spec", v.Schema.V3.Properties["spec"], reflect.TypeFor[policyapi.RateLimitPolicySpec]())
	compare(t, "status", v.Schema.V3.Properties["status"], reflect.TypeFor[policyapi.RateLimitPolicyStatus]())
}

// TestCopies: a copy shares nothing with what it was made of.
func TestCopies(t *testing.T) {
	t.Parallel()
	p := &policyapi.RateLimitPolicy{Spec: policyapi.RateLimitPolicySpec{
		TargetRefs: []policyapi.TargetRef{{Name: "a"}},
		Limits: []policyapi.Limit{{
			By: []policyapi.Key{{Type: policyapi.Identity}}, FairShare: []policyapi.Key{{Type: policyapi.Path}}, Overrides: []policyapi.Override{{Values: []string{"v"}}},
		}},
		Response: policyapi.Response{Headers: []policyapi.ResponseHeader{{Name: "n"}}},
	}}
	c, ok := p.DeepCopyObject().(*policyapi.RateLimitPolicy)
	if !ok || !reflect.DeepEqual(p, c) {
		t.Fatalf("%+v", c)
	}
	c.Spec.TargetRefs[0].Name, c.Spec.Limits[0].By[0].Type, c.Spec.Limits[0].Overrides[0].Values[0], c.Spec.Response.Headers[0].Name = "b", "b", "b", "b"
	c.Spec.Limits[0].FairShare[0].Type = "b"
	if p.Spec.TargetRefs[0].Name != "a" || p.Spec.Limits[0].By[0].Type != policyapi.Identity || p.Spec.Limits[0].Overrides[0].Values[0] != "v" ||
		p.Spec.Response.Headers[0].Name != "n" || p.Spec.Limits[0].FairShare[0].Type != policyapi.Path {
		t.Errorf("%+v", p.Spec)
	}
}
