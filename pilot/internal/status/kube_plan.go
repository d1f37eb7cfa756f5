package status

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
)

// controllerName is who has written an entry of a route's parents or a policy's ancestors.
const controllerName = "istio.io/gateway-controller"

// plan merges what an object is to have into the status that it has, and says whether that changes anything. The result is what
// to apply: our fields, and what others have put into lists that can only be replaced as a whole. wanted is nil when the object
// is to have nothing of ours; owns tells whether it has.
func plan(group string, live, wanted map[string]any, owns bool, now time.Time) (next map[string]any, changed bool) {
	next = map[string]any{}
	at := now.UTC().Format(time.RFC3339)
	for key, value := range wanted {
		next[key] = value
	}
	delete(next, "addresses") // whoever deploys a Gateway writes them
	for _, list := range []string{"parents", "ancestors"} {
		if entries, there := mergedEntries(list, live, next, at); there {
			changed = changed || !same(live[list], entries)
			next[list] = entries
		}
	}
	for key, value := range next {
		switch key {
		case "parents", "ancestors":
			continue
		case "conditions":
		default:
			keepTimes(value, live[key], at)
			changed = changed || !same(live[key], value)
		}
	}
	for _, key := range optional() {
		_, there := next[key]
		changed = changed || owns && !there && !emptyList(live[key])
	}
	conditions, differ := mergedConditions(group, live, next, owns, at)
	if len(conditions) > 0 {
		next["conditions"] = conditions
	} else {
		delete(next, "conditions")
	}
	changed = changed || differ
	if len(next) == 0 {
		changed = changed || owns && leaves(live) // applying nothing takes away what is ours alone
		if group != "" {
			next["conditions"] = []any{} // a custom resource without anything in its status is refused
		}
	}
	return next, changed
}

// optional are the fields that a status of ours may lose while it keeps others: what is not applied any more goes.
func optional() []string { return []string{"listeners", "attachedListenerSets"} }

// leaves tells whether a status has anything that we may have written.
func leaves(live map[string]any) bool {
	for _, key := range append(optional(), "conditions", "supportedFeatures", "observedGeneration") {
		if value := live[key]; !emptyList(value) {
			return true
		}
	}
	return false
}

// same compares two values of JSON; one that is absent is the same as an empty list.
func same(a, b any) bool {
	if emptyList(a) && emptyList(b) {
		return true
	}
	return equality.Semantic.DeepEqual(number(a), number(b))
}

func emptyList(v any) bool {
	list, ok := v.([]any)
	return v == nil || ok && len(list) == 0
}

// number makes numbers comparable, which decoders of JSON read as integers or not. A number in a text is that number.
func number(v any) any {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = number(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			out[i] = number(value)
		}
		return out
	}
	return v
}

// mergedEntries are the parents or ancestors: those of others as they are, in their places, ours as they are to be.
func mergedEntries(list string, live, next map[string]any, at string) (out []any, there bool) {
	have, _ := live[list].([]any)
	want, wanted := next[list].([]any)
	for _, e := range want {
		fillReference(e)
	}
	hadOurs := slices.ContainsFunc(have, isOurs)
	if !wanted && !hadOurs {
		return nil, false
	}
	// An entry that stays keeps its place, so that nothing is written when only the order of routes' parents differs.
	rest := slices.Clone(want)
	out = []any{}
	for _, old := range have {
		if !isOurs(old) {
			out = append(out, old)
			continue
		}
		i := slices.IndexFunc(rest, func(e any) bool { return sameEntry(e, old) })
		if i < 0 {
			continue
		}
		keepTimes(rest[i], old, at)
		out = append(out, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	for _, e := range rest {
		keepTimes(e, nil, at)
		out = append(out, e)
	}
	return out, true
}

func isOurs(entry any) bool {
	m, _ := entry.(map[string]any)
	return m["controllerName"] == controllerName
}

// fillReference says what the API server would fill in.
func fillReference(entry any) {
	m, _ := entry.(map[string]any)
	ref, ok := m["parentRef"].(map[string]any)
	if !ok {
		return
	}
	for key, value := range map[string]string{"group": groupGateway, "kind": "Gateway"} {
		if _, says := ref[key]; !says {
			ref[key] = value
		}
	}
}

// sameEntry tells whether two entries are about the same parent.
func sameEntry(a, b any) bool {
	x, _ := a.(map[string]any)
	y, _ := b.(map[string]any)
	for _, key := range []string{"parentRef", "ancestorRef"} {
		if !reflect.DeepEqual(number(x[key]), number(y[key])) {
			return false
		}
	}
	return true
}

// mergedConditions are the conditions to apply. Lists of conditions of the mesh's own kinds are replaced as a whole, so that those
// of others are among them; the API server merges the ones of other kinds by type.
func mergedConditions(group string, live, next map[string]any, owns bool, at string) (out []any, differ bool) {
	have, _ := live["conditions"].([]any)
	want, _ := next["conditions"].([]any)
	whole := strings.HasSuffix(group, ".istio.io")
	rest := slices.Clone(want)
	for _, old := range have {
		kind := typeOf(old)
		i := slices.IndexFunc(rest, func(c any) bool { return typeOf(c) == kind })
		switch {
		case i >= 0:
			keepTimes(rest[i], old, at)
			differ = differ || !same(old, rest[i])
			out = append(out, rest[i])
			rest = slices.Delete(rest, i, i+1)
		case whole && judged(kind):
			differ = true // it goes
		case judged(kind):
			differ = differ || owns
		case whole:
			out = append(out, old)
		}
	}
	for _, c := range rest {
		keepTimes(c, nil, at)
		out = append(out, c)
		differ = true
	}
	return out, differ
}

func typeOf(condition any) string {
	m, _ := condition.(map[string]any)
	kind, _ := m["type"].(string)
	return kind
}

// judged tells whether conditions of a type are ours to write, in the kinds that are written here.
func judged(kind string) bool {
	return slices.Contains([]string{
		"Accepted", "Programmed", "ResolvedRefs", "ZtunnelAccepted", "WaypointAccepted",
		"istio.io/WaypointBound", "istio.io/WaypointMissing", "istio.io/VisibilityApplied",
	}, kind)
}
