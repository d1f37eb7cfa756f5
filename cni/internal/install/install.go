// Package install puts the CNI plugin onto the node and into its network configuration, and keeps it there.
package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PluginType is the plugin's name in configurations and the name of its binary.
const PluginType = "istio-cni"

// Options of an installation.
type Options struct {
	// Source is the plugin's binary, BinDir where the container runtime looks for plugins.
	Source, BinDir string
	// NetDir holds the network configurations.
	NetDir string
	// Socket of the agent, and namespaces that the plugin leaves alone.
	Socket            string
	ExcludeNamespaces []string
}

// ErrNoNetwork means that no other plugin has configured the node's network yet.
var ErrNoNetwork = errors.New("no network configuration of another CNI plugin")

// Binary copies the plugin, replacing one that differs. Runtimes never see half of a file.
func Binary(o Options) error {
	want, err := os.ReadFile(o.Source)
	if err != nil {
		return fmt.Errorf("read the CNI plugin: %w", err)
	}
	target := filepath.Join(o.BinDir, PluginType)
	if have, err := os.ReadFile(target); err == nil && bytes.Equal(have, want) {
		return nil
	}
	return replace(target, want, 0o755)
}

// Chain appends the plugin to the first network configuration, and says whether it had to. What others have written there
// stays as it is.
func Chain(o Options) (changed bool, err error) {
	file, err := firstConfig(o.NetDir)
	if err != nil {
		return false, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("read network configuration: %w", err)
	}
	next, err := chained(data, filepath.Ext(file) == ".conflist", o)
	if err != nil {
		return false, fmt.Errorf("network configuration %s: %w", file, err)
	}
	if bytes.Equal(next, data) {
		return false, nil
	}
	if filepath.Ext(file) != ".conflist" {
		// A single plugin's file becomes a list that holds all of it. The file must go: runtimes would take it, not the list,
		// which sorts after it.
		list := strings.TrimSuffix(file, filepath.Ext(file)) + ".conflist"
		if err := replace(list, next, 0o644); err != nil {
			return true, err
		}
		if err := os.Remove(file); err != nil {
			return true, fmt.Errorf("replace network configuration %s by %s: %w", file, list, err)
		}
		return true, nil
	}
	return true, replace(file, next, 0o644)
}

// Unchain takes the plugin out of all configurations, and its binary away.
func Unchain(o Options) error {
	entries, err := os.ReadDir(o.NetDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("network configurations: %w", err)
	}
	var problems []error
	for _, e := range entries {
		file := filepath.Join(o.NetDir, e.Name())
		if filepath.Ext(file) != ".conflist" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if next, err := without(data); err == nil && !bytes.Equal(next, data) {
			problems = append(problems, replace(file, next, 0o644))
		}
	}
	if err := os.Remove(filepath.Join(o.BinDir, PluginType)); err != nil && !errors.Is(err, os.ErrNotExist) {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// firstConfig is the configuration that container runtimes use: the first by name.
func firstConfig(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("network configurations: %w", err)
	}
	for _, e := range entries { // sorted by name
		switch filepath.Ext(e.Name()) {
		case ".conflist", ".conf", ".json":
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", fmt.Errorf("%w in %s", ErrNoNetwork, dir)
}

// chained returns the configuration with the plugin as its last one.
func chained(data []byte, isList bool, o Options) ([]byte, error) {
	config, plugins, err := parse(data, isList)
	if err != nil {
		return nil, err
	}
	entry, err := json.Marshal(map[string]any{
		"type": PluginType, "plugin_event_socket": o.Socket, "exclude_namespaces": o.ExcludeNamespaces,
	})
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(plugins, isOurs)
	if at >= 0 && at == len(plugins)-1 && sameJSON(plugins[at], entry) {
		return data, nil
	}
	plugins = append(slices.DeleteFunc(plugins, isOurs), entry)
	return assemble(config, plugins)
}

func without(data []byte) ([]byte, error) {
	config, plugins, err := parse(data, true)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(plugins, isOurs) {
		return data, nil
	}
	return assemble(config, slices.DeleteFunc(plugins, isOurs))
}

func parse(data []byte, isList bool) (map[string]json.RawMessage, []json.RawMessage, error) {
	var config map[string]json.RawMessage
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if !isList {
		list := map[string]json.RawMessage{}
		for _, key := range []string{"name", "cniVersion"} {
			if value, ok := config[key]; ok {
				list[key] = value
			}
		}
		return list, []json.RawMessage{data}, nil
	}
	var plugins []json.RawMessage
	if err := json.Unmarshal(config["plugins"], &plugins); err != nil {
		return nil, nil, fmt.Errorf("plugins: %w", err)
	}
	return config, plugins, nil
}

func assemble(config map[string]json.RawMessage, plugins []json.RawMessage) ([]byte, error) {
	list, err := json.Marshal(plugins)
	if err != nil {
		return nil, err
	}
	config["plugins"] = list
	out, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(out, '\n'), nil
}

func isOurs(plugin json.RawMessage) bool {
	var about struct {
		Type string `json:"type"`
	}
	return json.Unmarshal(plugin, &about) == nil && about.Type == PluginType
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	left, _ := json.Marshal(x)
	right, _ := json.Marshal(y)
	return bytes.Equal(left, right)
}

// replace puts a complete file in place.
func replace(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(file, bytes.NewReader(data))
	err = errors.Join(err, file.Chmod(mode), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
