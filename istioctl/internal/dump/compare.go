package dump

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Difference is what differs in a section, as a unified diff from the control plane to the proxy; no lines when nothing does.
type Difference struct {
	Section string
	Lines   []string
}

// Compare compares what a proxy should have with what it has. What it was started with does not count, nor do versions, times and the
// order of resources. Endpoints are a section where both dumps have them.
func Compare(want, have *Envoy) []Difference {
	return append([]Difference{
		{"Clusters", differences(want.clusters, have.clusters)},
		{"Listeners", differences(want.listeners, have.listeners)},
		{"Routes", differences(want.routes, have.routes)},
	}, compareEndpoints(want, have)...)
}

// RoutesLoaded is when the proxy took over the newest of its routes; zero when it does not say.
func (e *Envoy) RoutesLoaded() time.Time {
	var newest time.Time
	for _, r := range e.routes {
		at, err := time.Parse(time.RFC3339Nano, text(r.entry, "lastUpdated"))
		if err == nil && !r.static && at.After(newest) {
			newest = at
		}
	}
	return newest
}

// fromControlPlane are the resources that were sent, by name. Of one that waits until it is warm, what serves meanwhile counts.
func fromControlPlane(all []resource) map[string]tree {
	out := map[string]tree{}
	for _, r := range all {
		if _, serves := out[r.name]; !r.static && !(serves && r.state == warming) {
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
		from, to := "istiod: "+name, "proxy: "+name
		w, wants := wanted[name]
		h, has := had[name]
		if !has {
			to = "proxy: it does not have it"
		}
		if !wants {
			from = "istiod: it should not be there"
		}
		out = append(out, unified(from, to, written(w), written(h))...)
	}
	return out
}

// written is a resource as lines, in one form whoever wrote it.
func written(body tree) []string {
	if body == nil {
		return nil
	}
	text, err := json.MarshalIndent(normal(body), "", "  ")
	if err != nil {
		return []string{err.Error()}
	}
	return strings.Split(string(text), "\n")
}

// normal is a value without what writers of JSON do differently. The value itself is not changed: it may be printed elsewhere.
func normal(v tree) tree {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = normal(v[i])
		}
		return out
	case map[string]any:
		return normalObject(v)
	case json.Number:
		return normalNumber(v)
	}
	return v
}

// normalNumber leaves integers alone. Most fractions have 32 bits, and are written with as many digits as that takes, or 64 would.
func normalNumber(v json.Number) json.Number {
	if _, err := v.Int64(); err == nil {
		return v
	}
	f, err := v.Float64()
	if err != nil {
		return v
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return json.Number(strconv.FormatInt(int64(f), 10))
	}
	return json.Number(strconv.FormatFloat(f, 'g', 7, 64))
}

func normalObject(v map[string]any) tree {
	out := make(map[string]any, len(v))
	for key, child := range v {
		switch m, isObject := child.(map[string]any); {
		case secret(key):
			out[key] = redacted // as much of it as each shows
		case key == "value" && isObject && len(m) == 0 && v["@type"] != nil:
			// The content of an empty message in an Any.
		default:
			out[key] = normal(child)
		}
	}
	return out
}
