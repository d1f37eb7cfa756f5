package iop

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/strvals"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

//go:embed profiles/*.yaml
var profiles embed.FS

// File is an IstioOperator file.
type File struct {
	Name string
	Data []byte
}

// Profiles returns the names of the profiles.
func Profiles() []string {
	entries, _ := profiles.ReadDir("profiles") // embedded: it is there
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return out
}

// Read returns the IstioOperator that files, in their order, and then the settings path=value of set, put over their profile. A path is
// below spec. All problems are reported, each with the file and the field.
func Read(files []File, set []string) (*Operator, error) {
	user := map[string]any{}
	var problems []error
	for _, f := range files {
		objects, err := parse(f)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		for _, object := range objects {
			user = stack(user, object)
		}
	}
	settings, err := settings(set)
	problems = append(problems, err)
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	user = stack(user, map[string]any{"spec": settings})
	spec, _ := user["spec"].(map[string]any)
	profile, _ := spec["profile"].(string)
	base, err := defaults(profile)
	if err != nil {
		return nil, err
	}
	return decode(overlay(base, user))
}

// parse reads and checks the documents of a file.
func parse(f File) ([]map[string]any, error) {
	var out []map[string]any
	for document := range strings.SplitSeq("\n"+string(f.Data), "\n---") {
		object := map[string]any{}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if len(object) == 0 {
			continue
		}
		if object["kind"] != Kind || object["apiVersion"] != APIVersion {
			return nil, fmt.Errorf("%s: %v %v: want %s of %s", f.Name, object["apiVersion"], object["kind"], Kind, APIVersion)
		}
		// A field that the file sets is the file's mistake; after it is put together with others nobody could tell.
		if _, err := decode(object); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		out = append(out, object)
	}
	return out, nil
}

// settings turns path=value into a tree below spec.
func settings(set []string) (map[string]any, error) {
	tree := map[string]any{}
	for _, s := range set {
		if !strings.Contains(s, "=") {
			return nil, fmt.Errorf("--set %s: want path=value", s)
		}
		if err := strvals.ParseInto(strings.TrimPrefix(s, "spec."), tree); err != nil {
			return nil, fmt.Errorf("--set %s: %w", s, err)
		}
	}
	if _, err := decode(map[string]any{"apiVersion": APIVersion, "kind": Kind, "spec": tree}); err != nil {
		return nil, fmt.Errorf("--set: %w", err)
	}
	return tree, nil
}

// defaults returns a profile put over the default one.
func defaults(profile string) (map[string]any, error) {
	base, err := load("default")
	if err != nil || profile == "" || profile == "default" {
		return base, err
	}
	if !slices.Contains(Profiles(), profile) {
		return nil, fmt.Errorf("profile: %q is none of %s", profile, strings.Join(Profiles(), ", "))
	}
	over, err := load(profile)
	if err != nil {
		return nil, err
	}
	return overlay(base, over), nil
}

func load(profile string) (map[string]any, error) {
	data, err := profiles.ReadFile("profiles/" + profile + ".yaml")
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	return out, yaml.Unmarshal(data, &out)
}

// decode turns a tree into the typed object; unknown fields are errors with their path.
func decode(tree map[string]any) (*Operator, error) {
	data, err := yaml.Marshal(tree)
	if err != nil {
		return nil, err
	}
	if data, err = yaml.YAMLToJSON(data); err != nil {
		return nil, err
	}
	out := &Operator{}
	strict, err := kjson.UnmarshalStrict(data, out)
	if err != nil {
		return nil, err
	}
	return out, errors.Join(strict...)
}

// overlay returns over put over base: objects are merged, gateways by name, everything else is replaced; null removes.
func overlay(base, over map[string]any) map[string]any { return merge(base, over, false) }

// stack is overlay among what the user says: null stays, to remove what the profile says.
func stack(base, over map[string]any) map[string]any { return merge(base, over, true) }

func merge(base, over map[string]any, nulls bool) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for key, value := range over {
		switch value := value.(type) {
		case nil:
			if delete(out, key); nulls {
				out[key] = nil
			}
		case map[string]any:
			below, _ := out[key].(map[string]any)
			out[key] = merge(below, value, nulls)
		case []any:
			if below, ok := out[key].([]any); ok && (key == "ingressGateways" || key == "egressGateways") {
				out[key] = overlayNamed(below, value, nulls)
				continue
			}
			out[key] = value
		default:
			out[key] = value
		}
	}
	return out
}

// overlayNamed merges gateways: by name, and those without a name, as --set makes them, by their place.
func overlayNamed(base, over []any, nulls bool) []any {
	out := slices.Clone(base)
	for i, item := range over {
		gateway, ok := item.(map[string]any)
		if !ok {
			continue // --set of a later place leaves holes
		}
		at := i
		if name, named := gateway["name"]; named {
			at = slices.IndexFunc(out, func(o any) bool {
				existing, _ := o.(map[string]any)
				return existing["name"] == name
			})
		}
		if at < 0 || at >= len(out) {
			out = append(out, gateway)
			continue
		}
		below, _ := out[at].(map[string]any)
		out[at] = merge(below, gateway, nulls)
	}
	return out
}
