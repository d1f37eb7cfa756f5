package render

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/operator/iop"
)

// applyOverlay changes the object that an overlay names.
func applyOverlay(objects []*unstructured.Unstructured, o iop.Overlay) error {
	at := slices.IndexFunc(objects, func(u *unstructured.Unstructured) bool {
		return u.GetKind() == o.Kind && u.GetName() == o.Name && (o.APIVersion == "" || u.GetAPIVersion() == o.APIVersion)
	})
	if at < 0 {
		if o.Optional {
			return nil
		}
		return fmt.Errorf("no %s %s in this component (set optional: true if it need not be there)", o.Kind, o.Name)
	}
	for i, p := range o.Patches {
		value, err := plainJSON(p.Value)
		if err != nil {
			return fmt.Errorf("patches[%d].value: %w", i, err)
		}
		steps, err := steps(p.Path)
		if err == nil {
			_, err = set(objects[at].Object, steps, value)
		}
		if err != nil {
			return fmt.Errorf("patches[%d].path %s: %w", i, p.Path, err)
		}
	}
	return nil
}

// plainJSON has numbers as unstructured objects want them.
func plainJSON(value any) (any, error) {
	if value == nil {
		return nil, nil
	}
	data, err := json.Marshal(map[string]any{"v": value, "kind": "v", "apiVersion": "v"})
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	return u.Object["v"], nil
}

// steps splits a path at its dots: those in brackets, and those after a backslash, belong to a name.
func steps(path string) ([]string, error) {
	var out []string
	var step strings.Builder
	depth := 0
	flush := func() {
		if step.Len() > 0 {
			out = append(out, step.String())
			step.Reset()
		}
	}
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path):
			i++
			step.WriteByte(path[i])
		case c == '[':
			if depth == 0 {
				flush()
			}
			depth++
			step.WriteByte(c)
		case c == ']':
			depth--
			step.WriteByte(c)
		case c == '.' && depth == 0:
			flush()
		default:
			step.WriteByte(c)
		}
	}
	flush()
	if depth != 0 || len(out) == 0 {
		return nil, fmt.Errorf("not a path; write a.b.[name:x].c")
	}
	return out, nil
}

// set puts a value where steps lead from node, and returns node, which is another one when a list grew or shrank. nil removes.
func set(node any, steps []string, value any) (any, error) {
	step, rest := steps[0], steps[1:]
	if inner, ok := strings.CutPrefix(step, "["); ok {
		list, _ := node.([]any)
		return setInList(list, strings.TrimSuffix(inner, "]"), rest, value)
	}
	object, ok := node.(map[string]any)
	if !ok {
		if node != nil {
			return nil, fmt.Errorf("%s: there is no object to have it", step)
		}
		object = map[string]any{}
	}
	if len(rest) == 0 {
		if value == nil {
			delete(object, step)
		} else if above, isMap := value.(map[string]any); isMap {
			below, _ := object[step].(map[string]any)
			object[step] = merge(below, above)
		} else {
			object[step] = value
		}
		return object, nil
	}
	below, err := set(object[step], rest, value)
	if err != nil {
		return nil, err
	}
	object[step] = below
	return object, nil
}

// setInList goes on at the element that a selector names: [3], [-1] (a new one), [name:x], or [x], which is the text itself.
func setInList(list []any, selector string, rest []string, value any) (any, error) {
	at := find(list, selector)
	if at < 0 && (selector != "-1" || value == nil) {
		return nil, fmt.Errorf("[%s]: no such element", selector)
	}
	if at < 0 {
		list, at = append(list, nil), len(list)
	}
	if len(rest) == 0 {
		if value == nil {
			return slices.Delete(list, at, at+1), nil
		}
		list[at] = value
		return list, nil
	}
	below, err := set(list[at], rest, value)
	if err != nil {
		return nil, err
	}
	list[at] = below
	return list, nil
}

func find(list []any, selector string) int {
	if n, err := strconv.Atoi(selector); err == nil {
		if n >= 0 && n < len(list) {
			return n
		}
		return -1
	}
	if key, want, ok := strings.Cut(selector, ":"); ok {
		at := slices.IndexFunc(list, func(o any) bool {
			object, isMap := o.(map[string]any)
			return isMap && fmt.Sprint(object[key]) == want
		})
		if at >= 0 {
			return at
		}
	}
	return slices.IndexFunc(list, func(o any) bool {
		text, isText := o.(string)
		return isText && (text == selector || strings.HasPrefix(text, selector+"="))
	})
}
