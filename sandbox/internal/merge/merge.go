// Package merge applies a manifest to an object that others have changed since the last time, as `kubectl apply` does:
// what the manifest says holds, what it said last time and says no more goes, and the rest stays.
package merge

import (
	"encoding/json"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
)

// Intent is what a manifest says of an object: the status is the business of others.
func Intent(obj manifest.Object) (map[string]any, error) {
	value, err := encode(obj)
	if err != nil {
		return nil, err
	}
	delete(value, "status")
	return value, nil
}

func encode(obj manifest.Object) (map[string]any, error) {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	var value map[string]any
	return value, json.Unmarshal(data, &value)
}

// Apply returns live changed by what next says. last is the Intent that was applied before, or nil.
func Apply(last map[string]any, live, next manifest.Object) (manifest.Object, error) {
	intent, err := Intent(next)
	if err != nil {
		return nil, err
	}
	current, err := encode(live)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(Three(last, current, intent))
	if err != nil {
		return nil, err
	}
	out, ok := reflect.New(reflect.TypeOf(next).Elem()).Interface().(manifest.Object)
	if !ok {
		return nil, fmt.Errorf("merge a %T", next)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("merge %s: %w", next.GetName(), err)
	}
	keepAllocated(live, next, out)
	return out, nil
}

// Three merges objects field by field; lists are replaced as a whole.
func Three(last, live, next any) any {
	want, ok := next.(map[string]any)
	have, also := live.(map[string]any)
	if !ok || !also {
		return next
	}
	before, _ := last.(map[string]any)
	out := make(map[string]any, len(have)+len(want))
	for key, value := range have {
		_, said := before[key]
		_, says := want[key]
		if says || !said {
			out[key] = value
		}
	}
	for key, value := range want {
		out[key] = Three(before[key], have[key], value)
	}
	return out
}

// keepAllocated keeps the addresses and node ports of a Service that its manifest leaves to the cluster.
func keepAllocated(live, next, merged manifest.Object) {
	old, ok := live.(*corev1.Service)
	want, also := next.(*corev1.Service)
	out, typed := merged.(*corev1.Service)
	if !ok || !also || !typed {
		return
	}
	if want.Spec.ClusterIP != "" && len(want.Spec.ClusterIPs) == 0 || want.Spec.Type == corev1.ServiceTypeExternalName {
		out.Spec.ClusterIP, out.Spec.ClusterIPs = want.Spec.ClusterIP, nil
	}
	if out.Spec.Type == "" || out.Spec.Type == corev1.ServiceTypeClusterIP {
		return
	}
	for i := range out.Spec.Ports {
		for _, p := range old.Spec.Ports {
			if p.Port == out.Spec.Ports[i].Port && out.Spec.Ports[i].NodePort == 0 {
				out.Spec.Ports[i].NodePort = p.NodePort
			}
		}
	}
}
