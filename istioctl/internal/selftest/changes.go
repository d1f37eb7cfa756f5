package selftest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/upgrade"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// kindMeshConfig is what the list of changes calls the mesh configuration.
const kindMeshConfig = "MeshConfig"

// concerned is a change, and the objects that it is about.
type concerned struct {
	change  *upgrade.Change
	objects []string
}

// changes tells what has changed since a version of Istio, as far as there is something that it concerns.
func changes(ctx context.Context, s *Subject, from int) []Result {
	all, err := upgrade.Changes()
	if err != nil {
		return failed(err)
	}
	var found []*concerned
	byKind := map[string][]*concerned{}
	for i := range all {
		if all[i].Concerns(from) {
			c := &concerned{change: &all[i]}
			found = append(found, c)
			byKind[all[i].Kind] = append(byKind[all[i].Kind], c)
		}
	}
	var unread []string
	for _, k := range kube.Kinds() {
		name := strings.TrimSuffix(k.GVK.Kind+"."+k.GVK.Group, ".")
		if len(byKind[name]) == 0 {
			continue
		}
		err := s.Mesh.EachRaw(ctx, k, "", func(object map[string]any) { look(byKind[name], k.GVK.Kind, object) })
		if err != nil && !errors.Is(err, reach.ErrNotFound) {
			unread = append(unread, k.Resource)
		}
	}
	if err := meshConfig(ctx, s, byKind[kindMeshConfig]); err != nil {
		unread = append(unread, "the mesh configuration: "+err.Error())
	}
	out := told(found)
	if len(unread) > 0 {
		out = append(out, warning("Ask for the right to list them", "not compared, as they cannot be read: %s", strings.Join(unread, ", ")))
	}
	if len(out) == 0 {
		return one(good("nothing that has changed since 1.%d concerns an object here", from))
	}
	return out
}

// look notes an object with the changes that concern it.
func look(list []*concerned, kind string, object map[string]any) {
	for _, c := range list {
		field, ok := c.change.Match(object)
		if !ok {
			continue
		}
		meta, _ := object["metadata"].(map[string]any)
		namespace, _ := meta["namespace"].(string)
		name, _ := meta["name"].(string)
		at := strings.Join(strings.Fields(kind+" "+strings.TrimPrefix(namespace+"/"+name, "/")+" "+field), " ")
		if !slices.Contains(c.objects, at) {
			c.objects = append(c.objects, at)
		}
	}
}

// meshConfig looks at the mesh configuration, of which there is one.
func meshConfig(ctx context.Context, s *Subject, list []*concerned) error {
	config, err := s.Mesh.Read(ctx, reach.Kind{Version: "v1", Name: "ConfigMap", Plural: "configmaps"}, s.IstioNamespace, "istio")
	if errors.Is(err, reach.ErrNotFound) || len(list) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	data, _ := config.Object["data"].(map[string]any)
	text, _ := data["mesh"].(string)
	var mesh map[string]any
	if err := yaml.Unmarshal([]byte(text), &mesh); err != nil {
		return fmt.Errorf("ConfigMap %s/istio: %w", s.IstioNamespace, err)
	}
	look(list, kindMeshConfig, mesh)
	return nil
}

// told puts the changes that say the same together.
func told(found []*concerned) []Result {
	var out []Result
	for _, c := range found {
		if len(c.objects) == 0 {
			continue
		}
		objects := c.objects
		again := slices.ContainsFunc(out, func(r Result) bool {
			return strings.HasPrefix(r.Detail, c.change.ID+": ") && strings.HasSuffix(r.Detail, c.change.Says)
		})
		for _, other := range found {
			if other != c && other.change.ID == c.change.ID && other.change.Says == c.change.Says {
				objects = slices.Concat(objects, other.objects)
			}
		}
		if !again {
			out = append(out, warning(c.change.Remedy, "%s: %s: %s", c.change.ID, few(objects), c.change.Says))
		}
	}
	return out
}
