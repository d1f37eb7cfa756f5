package collect

import (
	"context"
	"errors"
	"fmt"

	meshapi "istio.io/api/mesh/v1alpha1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// MeshConfig reads the mesh's configuration from YAML: what is in a ConfigMap under mesh, or a whole ConfigMap. Fields that are not known
// are ignored, because files written for other releases have them; what a control plane refuses of serviceEntryVisibility is refused.
func MeshConfig(data []byte) (*meshapi.MeshConfig, error) {
	var whole struct {
		Kind string            `json:"kind"`
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(data, &whole); err == nil && whole.Kind == "ConfigMap" {
		data = []byte(whole.Data["mesh"])
	}
	raw, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, fmt.Errorf("read the mesh configuration: %w", err)
	}
	out := &meshapi.MeshConfig{}
	if string(raw) == "null" {
		return out, nil
	}
	if _, err := ambient.ReadEntryVisibility(raw); err != nil {
		return nil, fmt.Errorf("read the mesh configuration: %w", err)
	}
	if _, err := kube.UnmarshalKnown(raw, out, "meshConfig"); err != nil {
		return nil, fmt.Errorf("read the mesh configuration: %w", err)
	}
	return out, nil
}

// meshConfigOf reads that of a mesh. Without a ConfigMap it is nil: not known.
func meshConfigOf(ctx context.Context, mesh *reach.Mesh, namespace, revision string) (*meshapi.MeshConfig, error) {
	name := "istio"
	if revision != "" && revision != "default" {
		name += "-" + revision
	}
	o, err := mesh.Read(ctx, reach.Kind{Version: "v1", Name: "ConfigMap", Plural: "configmaps"}, namespace, name)
	if errors.Is(err, reach.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, _, err := unstructured.NestedString(o.Object, "data", "mesh")
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: %w", namespace, name, err)
	}
	return MeshConfig([]byte(text))
}
