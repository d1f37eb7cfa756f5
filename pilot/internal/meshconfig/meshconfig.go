// Package meshconfig reads the mesh's configuration file and follows its changes.
package meshconfig

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/protobuf/encoding/protojson"
	meshapi "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Settings are what the file says and its defaults.
type Settings struct {
	// Proto is the configuration as users know it.
	Proto *meshapi.MeshConfig
	// ServiceEntryVisibility is PUBLIC when empty.
	ServiceEntryVisibility string
}

// Parse reads YAML. Fields that are not known are ignored, because files written for other releases have them.
func Parse(data []byte) (Settings, error) {
	raw, err := yaml.YAMLToJSON(data)
	if err != nil {
		return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
	}
	out := Settings{Proto: Default().Proto}
	if string(raw) == "null" {
		return out, nil
	}
	var extra struct {
		ServiceEntryVisibility string `json:"serviceEntryVisibility"`
	}
	if err := json.Unmarshal(raw, &extra); err != nil {
		return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
	}
	switch out.ServiceEntryVisibility = extra.ServiceEntryVisibility; out.ServiceEntryVisibility {
	case "", "NONE", "NAMESPACE", "PUBLIC":
	default:
		return Settings{}, fmt.Errorf("parse the mesh configuration: serviceEntryVisibility: %q is not one of NONE, NAMESPACE, PUBLIC", extra.ServiceEntryVisibility)
	}
	fromFile := &meshapi.MeshConfig{}
	if err := kube.UnmarshalMessage(raw, fromFile, protojson.UnmarshalOptions{DiscardUnknown: true}); err != nil {
		return Settings{}, fmt.Errorf("parse the mesh configuration: %w", err)
	}
	if fromFile.TrustDomain == "" {
		fromFile.TrustDomain = out.Proto.TrustDomain
	}
	if fromFile.RootNamespace == "" {
		fromFile.RootNamespace = out.Proto.RootNamespace
	}
	out.Proto = fromFile
	return out, nil
}

// Default is the configuration without a file.
func Default() Settings {
	return Settings{Proto: &meshapi.MeshConfig{TrustDomain: "cluster.local", RootNamespace: "istio-system"}}
}

// Mesh returns what translation depends on.
func (s Settings) Mesh(clusterID, network, domain string) registry.Mesh {
	m := registry.Mesh{Mesh: ambient.Mesh{
		ClusterID:              clusterID,
		Network:                network,
		Domain:                 domain,
		TrustDomain:            s.Proto.GetTrustDomain(),
		TrustDomainAliases:     s.Proto.GetTrustDomainAliases(),
		RootNamespace:          s.Proto.GetRootNamespace(),
		ServiceEntryVisibility: s.ServiceEntryVisibility,
	}}
	for _, sel := range s.Proto.GetDiscoverySelectors() {
		out := &metav1.LabelSelector{MatchLabels: sel.GetMatchLabels()}
		for _, e := range sel.GetMatchExpressions() {
			out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: e.GetKey(), Operator: metav1.LabelSelectorOperator(e.GetOperator()), Values: e.GetValues(),
			})
		}
		m.DiscoverySelectors = append(m.DiscoverySelectors, out)
	}
	return m
}

// Load reads a file; without one it returns the defaults.
func Load(file string) (Settings, error) {
	if file == "" {
		return Default(), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Settings{}, fmt.Errorf("read the mesh configuration: %w", err)
	}
	return Parse(data)
}

// settle is how long a file must be left alone before it is read.
const settle = 50 * time.Millisecond

// Follow calls changed with every version of the file that can be parsed, until ctx ends. Its directory is watched, so that
// atomic replacement and the swap of a mounted ConfigMap are seen.
func Follow(ctx context.Context, file string, log *slog.Logger, changed func(Settings)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the mesh configuration: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(file)); err != nil {
		return fmt.Errorf("watch the mesh configuration: %w", err)
	}
	timer := time.NewTimer(0) // what changed between Load and the watch
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			timer.Reset(settle)
		case err := <-watcher.Errors:
			log.Warn("watching the mesh configuration; reading it again", "error", err)
			timer.Reset(settle)
		case <-timer.C:
			s, err := Load(file)
			if err != nil {
				log.Error("the mesh configuration is not usable; the last good one stays in force", "error", err)
				continue
			}
			changed(s)
		}
	}
}
