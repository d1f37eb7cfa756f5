package upgrade

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Match returns the field of an object that a change is about; ok is false when it does not concern the object.
func (c *Change) Match(object map[string]any) (field string, ok bool) {
	for i := range c.When {
		w := &c.When[i]
		at, found := w.find(object)
		if found == w.Absent {
			return "", false
		}
		if !w.Absent && field == "" {
			field = at
		}
	}
	return field, true
}

// find returns the first place where the condition's value is.
func (w *Condition) find(object map[string]any) (string, bool) {
	return w.walk(object, w.path, "")
}

func (w *Condition) walk(v any, path []string, at string) (string, bool) {
	if len(path) == 0 {
		return at, w.takes(v)
	}
	step, rest := path[0], path[1:]
	switch step {
	case "[]":
		items, _ := v.([]any)
		for i, item := range items {
			if place, ok := w.walk(item, rest, fmt.Sprintf("%s[%d]", at, i)); ok {
				return place, true
			}
		}
		return "", false
	case "[*]":
		values, _ := v.(map[string]any)
		for _, k := range slices.Sorted(maps.Keys(values)) {
			if place, ok := w.walk(values[k], rest, at+"["+k+"]"); ok {
				return place, true
			}
		}
		return "", false
	}
	m, _ := v.(map[string]any)
	name, shown := step, step
	if strings.HasPrefix(step, "[") {
		name = strings.Trim(step, "[]")
	} else if at != "" {
		shown = "." + step
	}
	next, ok := m[name]
	if !ok {
		return "", false
	}
	return w.walk(next, rest, at+shown)
}

// takes is whether a value is one that is meant; what is empty is not there.
func (w *Condition) takes(v any) bool {
	text := ""
	switch v := v.(type) {
	case nil:
		return false
	case map[string]any:
		return w.value == nil
	case []any:
		return w.value == nil && len(v) > 0
	case string:
		text = v
	case bool:
		text = strconv.FormatBool(v)
	default:
		text = fmt.Sprint(v)
	}
	return w.value == nil || w.value.MatchString(text)
}
