package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/isthmus-mesh/isthmus/operator/charts"
	"github.com/isthmus-mesh/isthmus/pkg/nearest"
)

// top are the values beside those of the charts, and the chart whose schema knows each.
func top() map[string]string {
	return map[string]string{
		"global": "istiod", "meshConfig": "istiod", "sidecarInjectorWebhook": "istiod", "sidecarInjectorWebhookAnnotations": "istiod",
		"gatewayClasses": "istiod", "gatewayCredentials": "istiod", "telemetry": "istiod", "istiodRemote": "istiod", "experimental": "istiod", "revisionTags": "istiod",
		"ownerName": "istiod", "revision": "istiod", "profile": "istiod", "compatibilityVersion": "istiod", "platform": "istiod",
		"base": "base", "defaultRevision": "base", "istioReader": "base",
	}
}

// merge returns over put over base; lists are replaced, and null stays, since it removes a default of a chart.
func merge(base map[string]any, overs ...map[string]any) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for _, over := range overs {
		for key, value := range over {
			above, isMap := value.(map[string]any)
			below, wasMap := out[key].(map[string]any)
			if isMap && wasMap {
				out[key] = merge(below, above)
			} else {
				out[key] = value
			}
		}
	}
	return out
}

func section(values map[string]any, key string) map[string]any {
	out, _ := values[key].(map[string]any)
	return out
}

// global are the values that all charts share.
func (r *renderer) global() map[string]any {
	set := map[string]any{"istioNamespace": r.namespace}
	if hub := cmp.Or(r.op.Spec.Hub, r.o.Hub); hub != "" {
		set["hub"] = hub
	}
	switch {
	case r.op.Spec.Tag != nil:
		set["tag"] = r.op.Spec.Tag.String()
	case r.o.Tag != "":
		set["tag"] = r.o.Tag
	}
	own := section(r.values, "global")
	// The installer's own images are a default only; the installation's hub and tag are what the user says last.
	if r.op.Spec.Hub == "" && own["hub"] != nil {
		delete(set, "hub")
	}
	if r.op.Spec.Tag == nil && own["tag"] != nil {
		delete(set, "tag")
	}
	return merge(own, set)
}

// valuesOf returns the values of a component's chart.
func (r *renderer) valuesOf(p part) (map[string]any, error) {
	spec := r.op.Spec
	out := map[string]any{"global": r.global()}
	if spec.Profile != "" {
		out["profile"] = spec.Profile
	}
	if spec.CompatibilityVersion != "" {
		out["compatibilityVersion"] = spec.CompatibilityVersion
	}
	if spec.Revision != "" {
		out["revision"] = spec.Revision
	}
	mesh := merge(section(r.values, "meshConfig"), spec.MeshConfig)
	switch p.chart {
	case "base":
		delete(out, "revision")
		for _, key := range []string{"base", "defaultRevision", "istioReader"} {
			if v, ok := r.values[key]; ok {
				out[key] = v
			}
		}
	case "istiod":
		for key, chart := range top() {
			if v, ok := r.values[key]; ok && (chart == "istiod" && key != "global" || key == "base") {
				out[key] = v
			}
		}
		out = merge(out, section(r.values, "pilot"))
		if base := section(out, "base"); base != nil { // what is not istiod's
			out["base"] = keep(base, "validationURL", "validationCABundle", "enableIstioConfigCRDs")
		}
		if len(mesh) > 0 {
			out["meshConfig"] = mesh
		}
		if p.name == IstiodRemote {
			out["istiodRemote"] = merge(section(out, "istiodRemote"), map[string]any{"enabled": true})
		}
		r.ambientDefaults(out)
	case "cni":
		out = merge(out, section(r.values, "cni"))
	case "ztunnel":
		out = merge(out, section(r.values, "ztunnel"))
		if trust, ok := mesh["trustDomain"]; ok {
			out["meshConfig"] = merge(map[string]any{"trustDomain": trust}, section(out, "meshConfig"))
		}
	case "gateway":
		values, err := r.gatewayValues(p)
		if err != nil {
			return nil, err
		}
		out = merge(out, values)
	}
	if p.chart == "ztunnel" || p.chart == "gateway" {
		r.trustBundle(out)
	}
	if p.settings.Hub != "" {
		out["hub"] = p.settings.Hub
	}
	if p.settings.Tag != nil {
		out["tag"] = p.settings.Tag.String()
	}
	return out, nil
}

// trustBundle has proxies mount the root certificates from where the control plane is told to put them.
func (r *renderer) trustBundle(proxy map[string]any) {
	const name = "ENABLE_CLUSTER_TRUST_BUNDLE_API"
	if v, ok := section(section(r.values, "pilot"), "env")[name]; ok {
		proxy["env"] = merge(map[string]any{name: v}, section(proxy, "env"))
	}
}

// ambientDefaults tells the control plane where the node proxies are, when they are not beside it.
func (r *renderer) ambientDefaults(istiod map[string]any) {
	if ns := r.op.Spec.Components.Ztunnel.Namespace; ns != "" && istiod["trustedZtunnelNamespace"] == nil {
		istiod["trustedZtunnelNamespace"] = ns
	}
}

func keep(values map[string]any, keys ...string) map[string]any {
	out := map[string]any{}
	for _, key := range keys {
		if v, ok := values[key]; ok {
			out[key] = v
		}
	}
	return out
}

// check returns the values that no chart reads, and those of a wrong type.
func (r *renderer) check() []error {
	var problems []error
	nested := map[string]string{"pilot": "istiod", "cni": "cni", "ztunnel": "ztunnel"}
	beside := top()
	schemas := map[string]*schema{}
	for _, name := range charts.Names()[:4] {
		s, err := loadSchema(r, name)
		if err != nil {
			return []error{err}
		}
		schemas[name] = s
	}
	for _, key := range slices.Sorted(maps.Keys(r.op.Spec.Values)) {
		value, path := r.op.Spec.Values[key], "spec.values."+key
		switch {
		case key == "gateways": // gatewayValues reads them
		case nested[key] != "":
			problems = append(problems, schemas[nested[key]].check(path, value)...)
		case key == "base":
			both := *schemas["base"].Properties["base"]
			both.Properties = maps.Clone(both.Properties)
			maps.Copy(both.Properties, schemas["istiod"].Properties["base"].Properties)
			problems = append(problems, both.check(path, value)...)
		case beside[key] != "":
			problems = append(problems, schemas[beside[key]].Properties[key].check(path, value)...)
		default:
			known := append(slices.Sorted(maps.Keys(beside)), "cni", "gateways", "pilot", "ztunnel")
			problems = append(problems, unknown(path, key, known))
		}
	}
	for _, p := range r.parts() {
		if p.chart == "gateway" && p.settings.On() {
			if _, err := r.gatewayValues(p); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return problems
}

// schema is the part of JSON Schema that the charts' schemas use.
type schema struct {
	Type                 []string           `json:"type"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties *bool              `json:"additionalProperties"`
}

func loadSchema(r *renderer, chart string) (*schema, error) {
	c, err := charts.Load(r.charts, chart)
	if err != nil {
		return nil, err
	}
	out := &schema{}
	if err := json.Unmarshal(c.Schema, out); err != nil {
		return nil, fmt.Errorf("chart %s: values.schema.json: %w", chart, err)
	}
	return out, nil
}

// check returns what is wrong with a value.
func (s *schema) check(path string, value any) []error {
	if len(s.Type) > 0 && !slices.Contains(s.Type, typeOf(value)) {
		return []error{fmt.Errorf("%s: is %s %v, want %s", path, article(typeOf(value)), value, article(s.Type[0]))}
	}
	object, ok := value.(map[string]any)
	if !ok || s.Properties == nil {
		return nil
	}
	var problems []error
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if below, known := s.Properties[key]; known {
			problems = append(problems, below.check(path+"."+key, object[key])...)
		} else {
			problems = append(problems, unknown(path+"."+key, key, slices.Sorted(maps.Keys(s.Properties))))
		}
	}
	return problems
}

func typeOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	return "number"
}

func article(kind string) string {
	switch kind {
	case "object", "array":
		return "an " + kind
	case "null":
		return kind
	}
	return "a " + kind
}

// unknown says that a key is unknown, and the nearest that is known.
func unknown(path, key string, known []string) error {
	hint := "put it under spec.unvalidatedValues if a changed chart reads it"
	if near := nearest.Word(key, known, 1+len(key)/3); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	return fmt.Errorf("%s: unknown value; %s", path, hint)
}
