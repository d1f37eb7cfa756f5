package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/tools/internal/objects"
)

// scenario is a file: objects that come, change and go in steps. At its end everything goes.
type scenario struct {
	name  string
	env   []string // of both control planes
	steps []step
}

// environment identifies what the control planes get.
func (s *scenario) environment() string {
	return strings.Join(slices.Sorted(slices.Values(s.env)), " ")
}

// step is what is done before both sides are compared again.
type step struct {
	name    string
	actions []action
}

// action is one of: an object that is applied, one that is deleted, or one that is patched.
type action struct {
	apply  *unstructured.Unstructured
	remove string // Kind/namespace/name, or Kind/name
	patch  string // the same
	with   map[string]any
}

// document is what a document of a file may be, if it is no object.
type document struct {
	Env    map[string]string `json:"env"`    // before the first step
	Step   string            `json:"step"`   // begins a step
	Delete []string          `json:"delete"` // references
	Patch  string            `json:"patch"`  // a reference, and With, a JSON merge patch; a status in it goes to the subresource
	With   map[string]any    `json:"with"`
}

// loadScenarios reads those of a directory whose names match.
func loadScenarios(dir string, only *regexp.Regexp) ([]*scenario, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var out []*scenario
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if !only.MatchString(name) {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		s, err := parseScenario(name, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no scenario of %s matches %s", dir, only)
	}
	return out, nil
}

func parseScenario(name string, data []byte) (*scenario, error) {
	s := &scenario{name: name}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		raw, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := s.add(raw); err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, raw)
		}
	}
	if len(s.steps) == 0 {
		return nil, errors.New("there is no step")
	}
	return s, nil
}

// add reads one document.
func (s *scenario) add(raw []byte) error {
	content := map[string]any{}
	if err := yaml.Unmarshal(raw, &content); err != nil {
		return err
	}
	if len(content) == 0 {
		return nil
	}
	if content["kind"] != nil {
		return s.do(action{apply: complete(&unstructured.Unstructured{Object: content})})
	}
	var d document
	if err := yaml.UnmarshalStrict(raw, &d); err != nil {
		return err
	}
	for name, value := range d.Env {
		s.env = append(s.env, name+"="+value)
	}
	if d.Step != "" {
		s.steps = append(s.steps, step{name: d.Step})
	}
	for _, ref := range d.Delete {
		if err := s.do(action{remove: ref}); err != nil {
			return err
		}
	}
	if d.Patch != "" {
		return s.do(action{patch: d.Patch, with: d.With})
	}
	return nil
}

func (s *scenario) do(a action) error {
	if len(s.steps) == 0 {
		return errors.New("it is before the first step")
	}
	last := &s.steps[len(s.steps)-1]
	last.actions = append(last.actions, a)
	return nil
}

// complete adds what no scenario is about: a pod has a container, runs, and is ready.
func complete(o *unstructured.Unstructured) *unstructured.Unstructured {
	if o.GetKind() != "Pod" {
		return o
	}
	setDefault(o.Object, []any{map[string]any{"name": "app", "image": "registry.example.com/app"}}, "spec", "containers")
	if containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "containers"); len(containers) > 0 {
		for _, c := range containers {
			if c, ok := c.(map[string]any); ok && c["image"] == nil {
				c["image"] = "registry.example.com/app"
			}
		}
		_ = unstructured.SetNestedSlice(o.Object, containers, "spec", "containers")
	}
	setDefault(o.Object, "Running", "status", "phase")
	setDefault(o.Object, []any{map[string]any{"type": "Ready", "status": "True"}}, "status", "conditions")
	if ips, _, _ := unstructured.NestedSlice(o.Object, "status", "podIPs"); len(ips) > 0 {
		if first, ok := ips[0].(map[string]any); ok {
			setDefault(o.Object, first["ip"], "status", "podIP")
		}
	}
	return o
}

func setDefault(in map[string]any, value any, path ...string) {
	if _, there, err := unstructured.NestedFieldNoCopy(in, path...); err == nil && !there {
		_ = unstructured.SetNestedField(in, value, path...)
	}
}

// do takes one action of a step.
func do(ctx context.Context, c *objects.Cluster, a action) error {
	switch {
	case a.apply != nil:
		return c.Apply(ctx, a.apply)
	case a.patch != "":
		return c.Patch(ctx, a.patch, a.with)
	default:
		return c.Remove(ctx, a.remove)
	}
}

// doAll takes the actions of a step.
func doAll(ctx context.Context, c *objects.Cluster, actions []action) error {
	for _, a := range actions {
		if err := do(ctx, c, a); err != nil {
			return err
		}
	}
	return nil
}
