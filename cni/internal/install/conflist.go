package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// chained returns the configuration with the plugin as its last one.
func chained(data []byte, isList bool, o Options) ([]byte, error) {
	config, plugins, err := parse(data, isList)
	if err != nil {
		return nil, err
	}
	entry, err := o.entry(nil)
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

// hasPlugin tells whether a configuration calls the plugin.
func hasPlugin(data []byte) bool {
	_, plugins, err := parse(data, true)
	return err == nil && slices.ContainsFunc(plugins, isOurs)
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
