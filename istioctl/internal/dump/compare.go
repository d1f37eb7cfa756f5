package dump

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Difference is what differs in a section; no lines when nothing does.
type Difference struct {
	Section string
	Lines   []string
}

// Compare compares what a proxy should have with what it has. What it was started with does not count.
func Compare(want, have *Envoy) []Difference {
	return []Difference{
		{"Clusters", differences(want.clusters, have.clusters)},
		{"Listeners", differences(want.listeners, have.listeners)},
		{"Routes", differences(want.routes, have.routes)},
	}
}

// fromControlPlane are the resources that were sent, by name.
func fromControlPlane(all []resource) map[string]tree {
	out := map[string]tree{}
	for _, r := range all {
		_, versioned := at(r.entry, "versionInfo").(string)
		if versioned || at(r.entry, "activeState") != nil || at(r.entry, "warmingState") != nil {
			out[r.name] = r.body
		}
	}
	return out
}

func differences(want, have []resource) []string {
	wanted, had := fromControlPlane(want), fromControlPlane(have)
	names := slices.Collect(maps.Keys(wanted))
	for name := range had {
		if _, both := wanted[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []string
	for _, name := range names {
		w, wants := wanted[name]
		h, has := had[name]
		switch {
		case !has:
			out = append(out, "- "+name+" is missing")
		case !wants:
			out = append(out, "+ "+name+" should not be there")
		default:
			for _, line := range changes("", w, h) {
				out = append(out, name+line)
			}
		}
	}
	return out
}

// changes are the fields that differ, by path.
func changes(path string, want, have tree) []string {
	if reflect.DeepEqual(want, have) {
		return nil
	}
	w, h := object(want), object(have)
	if w == nil || h == nil {
		return []string{fmt.Sprintf("%s: -%s +%s", path, brief(want), brief(have))}
	}
	names := slices.Collect(maps.Keys(w))
	for name := range h {
		if _, both := w[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []string
	for _, name := range names {
		out = append(out, changes(path+"."+name, w[name], h[name])...)
	}
	return out
}

// brief is a value in a line.
func brief(v tree) string {
	const most = 200
	if v == nil {
		return "(nothing)"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(text) > most {
		return string(text[:most]) + "..."
	}
	return string(text)
}
