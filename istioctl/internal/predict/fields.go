package predict

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// maxValue bounds how much of a value is shown.
const maxValue = 120

// fields are the differences between two versions of a resource, by path.
func fields(before, after *anypb.Any) []string {
	a, errA := decode(before)
	b, errB := decode(after)
	if errA != nil || errB != nil {
		return []string{"(the content cannot be shown)"}
	}
	var out []string
	differ("", a, b, &out)
	return out
}

func decode(any *anypb.Any) (value any, err error) {
	var m proto.Message
	switch short(any.GetTypeUrl()) {
	case "Address":
		m = &workload.Address{}
	case "Authorization":
		m = &security.Authorization{}
	default:
		if m, err = any.UnmarshalNew(); err != nil {
			return nil, err
		}
	}
	if err := proto.Unmarshal(any.GetValue(), m); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(text, &value)
	return readable("", value), err
}

// readable writes addresses as people do: the encoding has their bytes.
func readable(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = readable(k, e)
		}
	case []any:
		for i, e := range v {
			v[i] = readable(key, e)
		}
	case string:
		if raw, err := base64.StdEncoding.DecodeString(v); err == nil && (key == "address" || key == "addresses") {
			if ip, ok := netip.AddrFromSlice(raw); ok {
				return ip.String()
			}
		}
	}
	return v
}

func differ(path string, a, b any, out *[]string) {
	if reflect.DeepEqual(a, b) {
		return
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			keys := slices.Collect(maps.Keys(x))
			for k := range y {
				if _, ok := x[k]; !ok {
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			for _, k := range keys {
				differ(strings.TrimPrefix(path+"."+k, "."), x[k], y[k], out)
			}
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			lists(path, x, y, out)
			return
		}
	}
	*out = append(*out, path+": "+show(a)+" → "+show(b))
}

// lists compares elements by their names where they have any, else by what is in one list only.
func lists(path string, a, b []any, out *[]string) {
	x, y := named(a), named(b)
	if x != nil && y != nil {
		for _, name := range slices.Sorted(maps.Keys(x)) {
			differ(path+"["+name+"]", x[name], y[name], out)
		}
		for _, name := range slices.Sorted(maps.Keys(y)) {
			if _, ok := x[name]; !ok {
				differ(path+"["+name+"]", nil, y[name], out)
			}
		}
		if len(x) == len(y) && !slices.Equal(order(a), order(b)) {
			*out = append(*out, path+": the order changes")
		}
		return
	}
	if len(a) == 1 && len(b) == 1 {
		differ(path+"[0]", a[0], b[0], out)
		return
	}
	for _, v := range a {
		if !contains(b, v) {
			*out = append(*out, path+": - "+show(v))
		}
	}
	for _, v := range b {
		if !contains(a, v) {
			*out = append(*out, path+": + "+show(v))
		}
	}
}

func contains(list []any, v any) bool {
	return slices.ContainsFunc(list, func(have any) bool { return reflect.DeepEqual(have, v) })
}

// nameOf is what tells an element of a list from the others.
func nameOf(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	for _, k := range []string{"name", "servicePort", "clusterName"} {
		if n, ok := m[k]; ok {
			return fmt.Sprint(n)
		}
	}
	return ""
}

// named finds elements by name; nil when some have none, or two the same.
func named(list []any) map[string]any {
	out := map[string]any{}
	for _, v := range list {
		n := nameOf(v)
		if _, twice := out[n]; n == "" || twice {
			return nil
		}
		out[n] = v
	}
	return out
}

func order(list []any) (out []string) {
	for _, v := range list {
		out = append(out, nameOf(v))
	}
	return out
}

// show is a value on one line.
func show(v any) string {
	if v == nil {
		return "(none)"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(text) > maxValue {
		return string(text[:maxValue]) + "…"
	}
	return string(text)
}
