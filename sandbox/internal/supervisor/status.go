package supervisor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// statusDir is where the control plane writes what became of objects; it has no API server to write it to.
const statusDir = "status"

// shown are objects as people see them: with what the control plane says of them in their status.
func (s *Supervisor) shown(objects []manifest.Object) ([]map[string]any, error) {
	out := make([]map[string]any, 0, len(objects))
	for _, o := range objects {
		data, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		var fields map[string]any
		if err := json.Unmarshal(data, &fields); err != nil {
			return nil, err
		}
		said, err := s.said(store.KeyOf(o))
		if err != nil {
			return nil, err
		}
		if said != nil {
			own, _ := fields["status"].(map[string]any)
			fields["status"] = joined(own, said)
		}
		out = append(out, fields)
	}
	return out, nil
}

// said is the status that the control plane has written for an object, nil for none.
func (s *Supervisor) said(key store.Key) (map[string]any, error) {
	kind := strings.ToLower(key.Kind)
	if key.Group != "" {
		kind += "." + key.Group
	}
	data, err := os.ReadFile(filepath.Join(s.cfg.StateDir, statusDir, kind, key.Namespace, key.Name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var document struct {
		Status map[string]any `json:"status"`
	}
	return document.Status, json.Unmarshal(data, &document)
}

// joined is one status of two writers. Each has its own conditions; of one that both have, the one that is not true counts.
func joined(own, said map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range own {
		out[key] = value
	}
	for key, value := range said {
		if _, both := out[key]; !both {
			out[key] = value
		}
	}
	mine, _ := own["conditions"].([]any)
	theirs, _ := said["conditions"].([]any)
	conditions := slices.Clone(theirs)
	for _, c := range mine {
		i := slices.IndexFunc(conditions, func(o any) bool { return field(o, "type") == field(c, "type") })
		switch {
		case i < 0:
			conditions = append(conditions, c)
		case field(c, "status") != "True":
			conditions[i] = c
		}
	}
	if len(conditions) > 0 {
		out["conditions"] = conditions
	}
	return out
}

func field(condition any, name string) string {
	m, _ := condition.(map[string]any)
	text, _ := m[name].(string)
	return text
}
