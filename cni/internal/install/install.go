// Package install puts the CNI plugin onto the node and into its network configuration, and keeps it there.
//
// Container runtimes take the first configuration of the directory, by name. In one of three ways the plugin becomes part of it:
// chained to the configuration of the node's own network; in a configuration of its own that sorts before that one and has a copy of it
// (so that the network's installer, which writes its file anew when the node starts, cannot take the plugin out); or, not chained,
// in a file of its own that another plugin (such as multus) calls.
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

// Names of configuration files that are chosen when the options name none.
const (
	DefaultOwned     = "02-istio-cni.conflist"
	DefaultUnchained = "YYY-istio-cni.conf"
)

// Options of an installation.
type Options struct {
	// Source is the plugin's binary, BinDir where the container runtime looks for plugins.
	Source, BinDir string
	// NetDir holds the network configurations, ConfName is the one of the node's network. Empty is the first by name.
	NetDir, ConfName string
	// Unchained writes a file of the plugin alone, called ConfName.
	Unchained bool
	// Owned writes a configuration of its own before the node's, called OwnedName.
	Owned     bool
	OwnedName string
	// Socket of the agent, and namespaces that the plugin leaves alone.
	Socket            string
	ExcludeNamespaces []string
	// LogLevel is the plugin's; empty leaves it to the plugin.
	LogLevel string
	// SystemNamespaces are those whose pods start even while the agent is away: its own, or nothing could bring it back.
	SystemNamespaces []string
}

func (o Options) ownedFile() string {
	name := o.OwnedName
	if name == "" {
		name = DefaultOwned
	}
	return filepath.Join(o.NetDir, name)
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

// Configure brings the plugin into the network configuration, and says whether anything had to change. What others have written
// stays as it is.
func Configure(o Options) (changed bool, err error) {
	switch {
	case o.Unchained:
		return unchained(o)
	case o.Owned:
		return owned(o)
	}
	changed, err = Chain(o)
	if err != nil {
		return changed, err
	}
	gone, err := removeOwned(o) // of an earlier installation
	return changed || gone, err
}

// Chain appends the plugin to the network configuration, and says whether it had to.
func Chain(o Options) (changed bool, err error) {
	file, err := o.network()
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

// owned writes a copy of the node's configuration with the plugin in it. Without one, a copy of before stays: the network's
// installer may be about to write it again, and until then no pod must start past the plugin.
func owned(o Options) (bool, error) {
	target := o.ownedFile()
	file, err := o.network()
	if errors.Is(err, ErrNoNetwork) {
		if data, readErr := os.ReadFile(target); readErr == nil && hasPlugin(data) {
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	if filepath.Base(file) < filepath.Base(target) {
		return false, fmt.Errorf("network configuration %s comes before %s, which runtimes would never read: choose another name for the mesh's own configuration", file, target)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("read network configuration: %w", err)
	}
	next, err := chained(data, filepath.Ext(file) == ".conflist", o)
	if err != nil {
		return false, fmt.Errorf("network configuration %s: %w", file, err)
	}
	changed := false
	if have, err := os.ReadFile(target); err != nil || !bytes.Equal(have, next) {
		changed = true
		if err := replace(target, next, 0o644); err != nil {
			return true, err
		}
	}
	// An earlier installation may have chained itself to the node's own file.
	if plain, err := without(data); err == nil && filepath.Ext(file) == ".conflist" && !bytes.Equal(plain, data) {
		return true, replace(file, plain, 0o644)
	}
	return changed, nil
}

func unchained(o Options) (bool, error) {
	name := o.ConfName
	if name == "" {
		name = DefaultUnchained
	}
	entry, err := o.entry(map[string]any{"cniVersion": "0.3.1", "name": PluginType, "unchained": true})
	if err != nil {
		return false, err
	}
	target := filepath.Join(o.NetDir, name)
	if have, err := os.ReadFile(target); err == nil && sameJSON(have, entry) {
		return false, nil
	}
	return true, replace(target, entry, 0o644)
}

// Validate checks that runtimes will call the plugin: its binary is there, and the configuration that they take has it.
func Validate(o Options) error {
	if info, err := os.Stat(filepath.Join(o.BinDir, PluginType)); err != nil || info.Mode()&0o111 == 0 {
		return fmt.Errorf("the CNI plugin is not in %s: %w", o.BinDir, cmpError(err, "not executable"))
	}
	if o.Unchained {
		return nil
	}
	file, err := firstConfig(o.NetDir, "")
	if err != nil {
		return err
	}
	if o.ConfName != "" && !o.Owned {
		file = filepath.Join(o.NetDir, o.ConfName)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read network configuration: %w", err)
	}
	if !hasPlugin(data) {
		return fmt.Errorf("network configuration %s, which runtimes take, does not call %s: does another CNI insist on being the only one (Cilium: cni.exclusive=false)?", file, PluginType)
	}
	return nil
}

func cmpError(err error, otherwise string) error {
	if err != nil {
		return err
	}
	return errors.New(otherwise)
}

// Uninstall takes the plugin out of all configurations, and its files away.
func Uninstall(o Options) error {
	var problems []error
	if _, err := removeOwned(o); err != nil {
		problems = append(problems, err)
	}
	if o.Unchained {
		name := o.ConfName
		if name == "" {
			name = DefaultUnchained
		}
		if err := os.Remove(filepath.Join(o.NetDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	entries, err := os.ReadDir(o.NetDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(append(problems, fmt.Errorf("network configurations: %w", err))...)
	}
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

func removeOwned(o Options) (bool, error) {
	file := o.ownedFile()
	data, err := os.ReadFile(file)
	if err != nil || !hasPlugin(data) {
		return false, nil // not there, or not ours
	}
	if _, err := o.network(); err != nil {
		return false, nil // without it the node has no network at all
	}
	if err := os.Remove(file); err != nil {
		return false, fmt.Errorf("remove network configuration: %w", err)
	}
	return true, nil
}

// network is the configuration of the node's own network.
func (o Options) network() (string, error) {
	if o.ConfName == "" {
		return firstConfig(o.NetDir, filepath.Base(o.ownedFile()))
	}
	file := filepath.Join(o.NetDir, o.ConfName)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	list := strings.TrimSuffix(file, filepath.Ext(file)) + ".conflist" // what Chain makes of a single plugin's file
	if _, err := os.Stat(list); err == nil {
		return list, nil
	}
	return "", fmt.Errorf("%w: %s is not there", ErrNoNetwork, file)
}

// firstConfig is the configuration that container runtimes use: the first by name, apart from one.
func firstConfig(dir, except string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("network configurations: %w", err)
	}
	for _, e := range entries { // sorted by name
		if e.Name() == except || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".conflist", ".conf", ".json":
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", fmt.Errorf("%w in %s", ErrNoNetwork, dir)
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
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// entry is the plugin's own configuration.
func (o Options) entry(more map[string]any) ([]byte, error) {
	config := map[string]any{
		"type": PluginType, "plugin_event_socket": o.Socket, "exclude_namespaces": slices.Compact(slices.Sorted(slices.Values(o.ExcludeNamespaces))),
	}
	if len(o.SystemNamespaces) > 0 {
		config["system_namespaces"] = o.SystemNamespaces
	}
	if o.LogLevel != "" {
		config["plugin_log_level"] = o.LogLevel
	}
	for key, value := range more {
		config[key] = value
	}
	return json.Marshal(config)
}
