// Package meshconfig reads the mesh's configuration, from a file or from ConfigMaps, and follows its changes.
package meshconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	meshapi "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Settings are what the file says and its defaults.
type Settings struct {
	// Proto is the configuration as users know it.
	Proto *meshapi.MeshConfig
	// Networks say where endpoints are.
	Networks Networks
	// Visibility is serviceEntryVisibility, compiled; nil when the configuration does not have it.
	Visibility *ambient.EntryVisibility
}

// Parse reads YAML: what a later layer says counts before what an earlier one says, field by field, and within defaultConfig, too.
// Fields that are not known are ignored, because files written for other releases have them; within serviceEntryVisibility they are
// refused.
func Parse(layers ...[]byte) (Settings, error) {
	fields := map[string]json.RawMessage{}
	for _, layer := range layers {
		if err := overlay(fields, layer); err != nil {
			return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
		}
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
	}
	out := Settings{Proto: &meshapi.MeshConfig{}}
	if out.Visibility, err = ambient.ReadEntryVisibility(raw); err != nil {
		return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
	}
	if _, err := kube.UnmarshalKnown(raw, out.Proto, "meshConfig"); err != nil {
		return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
	}
	defaults := Default().Proto
	out.Proto.TrustDomain = cmp.Or(out.Proto.TrustDomain, defaults.TrustDomain)
	out.Proto.RootNamespace = cmp.Or(out.Proto.RootNamespace, defaults.RootNamespace)
	if _, err := out.Selectors(); err != nil {
		return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
	}
	return out, nil
}

// overlay puts the fields of a layer over those of the ones before.
func overlay(fields map[string]json.RawMessage, layer []byte) error {
	raw, err := yaml.YAMLToJSON(layer)
	if err != nil || string(raw) == "null" {
		return err
	}
	var next map[string]json.RawMessage
	if err := json.Unmarshal(raw, &next); err != nil {
		return errors.New("it is not a list of fields")
	}
	const nested = "defaultConfig"
	if before, after := fields[nested], next[nested]; before != nil && after != nil {
		var merged map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(before, &merged), json.Unmarshal(after, &merged)); err != nil {
			return fmt.Errorf("%s: %w", nested, err)
		}
		if next[nested], err = json.Marshal(merged); err != nil {
			return fmt.Errorf("%s: %w", nested, err)
		}
	}
	maps.Copy(fields, next)
	return nil
}

// Default is the configuration without a file.
func Default() Settings {
	return Settings{Proto: &meshapi.MeshConfig{TrustDomain: "cluster.local", RootNamespace: "istio-system"}}
}

// Mesh returns what translation depends on.
func (s Settings) Mesh(clusterID, network, domain string) registry.Mesh {
	m := registry.Mesh{Mesh: ambient.Mesh{
		ClusterID:          clusterID,
		Network:            cmp.Or(s.Networks.Registries[clusterID], network),
		Networks:           s.Networks.Blocks,
		Domain:             domain,
		TrustDomain:        s.Proto.GetTrustDomain(),
		TrustDomainAliases: s.Proto.GetTrustDomainAliases(),
		RootNamespace:      s.Proto.GetRootNamespace(),
		Visibility:         s.Visibility,
	}}
	m.DiscoverySelectors = s.labelSelectors()
	return m
}

func (s Settings) labelSelectors() (out []*metav1.LabelSelector) {
	for _, from := range s.Proto.GetDiscoverySelectors() {
		out = append(out, ambient.LabelSelector(from))
	}
	return out
}

// Selectors choose the namespaces that are part of the mesh; none choose all.
func (s Settings) Selectors() ([]labels.Selector, error) {
	var out []labels.Selector
	for i, l := range s.labelSelectors() {
		selector, err := metav1.LabelSelectorAsSelector(l)
		if err != nil {
			return nil, fmt.Errorf("discoverySelectors[%d]: %w", i, err)
		}
		out = append(out, selector)
	}
	return out, nil
}
