package gateways

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"sigs.k8s.io/yaml"
)

// What the parameters of a Gateway may hold. The last two make sense with autoscaling only, which the sandbox has none of.
func parameters() map[string]bool {
	return map[string]bool{"deployment": true, "service": true, "serviceAccount": true, "horizontalPodAutoscaler": false, "podDisruptionBudget": false}
}

// overlaid applies the parameters of a Gateway to its objects.
func overlaid(objects Objects, custom map[string]string) (Objects, error) {
	known := parameters()
	var problems []error
	for _, key := range slices.Sorted(maps.Keys(custom)) {
		applies, ok := known[key]
		if !ok {
			problems = append(problems, fmt.Errorf("parameters: %q is none of deployment, service, serviceAccount, horizontalPodAutoscaler, podDisruptionBudget", key))
			continue
		}
		if !applies {
			continue
		}
		var err error
		switch key {
		case "deployment":
			err = overlay(objects.Deployment, custom[key])
		case "service":
			err = overlay(objects.Service, custom[key])
		case "serviceAccount":
			err = overlay(objects.ServiceAccount, custom[key])
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("parameters: %s: %w", key, err))
		}
	}
	return objects, errors.Join(problems...)
}

// overlay changes target by a patch in YAML.
func overlay[T any](target *T, patch string) error {
	text, err := yaml.YAMLToJSONStrict([]byte(patch))
	if err != nil {
		return err
	}
	var change, value map[string]any
	if err := json.Unmarshal(text, &change); err != nil {
		return err
	}
	if metadata, ok := change["metadata"].(map[string]any); ok {
		for _, fixed := range []string{"name", "namespace"} {
			if _, says := metadata[fixed]; says {
				return fmt.Errorf("metadata.%s cannot be changed", fixed)
			}
		}
	}
	if text, err = json.Marshal(target); err != nil {
		return err
	}
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	if text, err = json.Marshal(patched(value, change)); err != nil {
		return err
	}
	var fresh T
	if err := yaml.UnmarshalStrict(text, &fresh); err != nil {
		return err
	}
	*target = fresh
	return nil
}

// patched merges as kubectl patches: fields one by one, lists of named things by name, null takes away.
func patched(value, change any) any {
	switch change := change.(type) {
	case map[string]any:
		out, _ := value.(map[string]any)
		out = maps.Clone(out)
		if out == nil {
			out = map[string]any{}
		}
		for key, c := range change {
			if c == nil {
				delete(out, key)
			} else {
				out[key] = patched(out[key], c)
			}
		}
		return out
	case []any:
		have, _ := value.([]any)
		if !named(change) || !named(have) {
			return change
		}
		out := slices.Clone(have)
		for _, c := range change {
			i := slices.IndexFunc(out, func(o any) bool { return nameOf(o) == nameOf(c) })
			if i < 0 {
				out = append(out, c)
			} else {
				out[i] = patched(out[i], c)
			}
		}
		return out
	}
	return change
}

func named(list []any) bool {
	return !slices.ContainsFunc(list, func(e any) bool { return nameOf(e) == "" })
}

func nameOf(element any) string {
	m, _ := element.(map[string]any)
	name, _ := m["name"].(string)
	return name
}
