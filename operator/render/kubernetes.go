package render

import (
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/operator/iop"
)

// applySettings puts the k8s settings of a component into its objects, then its overlays.
func applySettings(objects []*unstructured.Unstructured, p part) error {
	k := p.settings.K8s
	if k == nil {
		return nil
	}
	for _, u := range objects {
		var err error
		switch u.GetKind() {
		case "Deployment", "DaemonSet":
			err = applyToWorkload(u, k)
		case "Service":
			err = applyToService(u, k)
		case "HorizontalPodAutoscaler":
			if k.HPASpec != nil {
				err = overlayAt(u, *k.HPASpec, "spec")
			}
		case "PodDisruptionBudget":
			if k.PodDisruptionBudget != nil {
				u.Object["spec"] = map[string]any{"selector": section(u.Object, "spec")["selector"]}
				err = overlayAt(u, *k.PodDisruptionBudget, "spec")
			}
		}
		if err != nil {
			return fmt.Errorf("k8s, for %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	for i, o := range k.Overlays {
		if err := applyOverlay(objects, o); err != nil {
			return fmt.Errorf("k8s.overlays[%d]: %w", i, err)
		}
	}
	return nil
}

// unmarshal reads JSON without the fields that are unset.
func unmarshal(data []byte, out *any) error {
	if err := json.Unmarshal(data, out); err != nil {
		return err
	}
	*out = prune(*out)
	return nil
}

// prune removes nulls and objects that are empty thereby.
func prune(value any) any {
	object, ok := value.(map[string]any)
	if !ok {
		return value
	}
	for key, v := range object {
		switch v := prune(v).(type) {
		case nil:
			delete(object, key)
		case map[string]any:
			if len(v) == 0 && key != "emptyDir" {
				delete(object, key)
			}
		}
	}
	return object
}

// overlayAt merges a typed value into the object at a path.
func overlayAt(u *unstructured.Unstructured, value any, path ...string) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	var over any
	if err := unmarshal(data, &over); err != nil {
		return err
	}
	if below, ok, _ := unstructured.NestedMap(u.Object, path...); ok {
		if object, isMap := over.(map[string]any); isMap {
			over = merge(below, object)
		}
	}
	return unstructured.SetNestedField(u.Object, over, path...)
}

func applyToWorkload(u *unstructured.Unstructured, k *iop.Kubernetes) error {
	pod := []string{"spec", "template", "spec"}
	var err error
	put := func(is bool, value any, path ...string) {
		if is && err == nil {
			err = overlayAt(u, value, path...)
		}
	}
	at := func(field string) []string { return append(slices.Clone(pod), field) }
	if k.Affinity != nil {
		unstructured.RemoveNestedField(u.Object, at("affinity")...)
	}
	put(k.Affinity != nil, k.Affinity, at("affinity")...)
	put(k.NodeSelector != nil, k.NodeSelector, at("nodeSelector")...)
	put(k.Tolerations != nil, k.Tolerations, at("tolerations")...)
	put(k.SecurityContext != nil, k.SecurityContext, at("securityContext")...)
	put(k.PriorityClassName != "", k.PriorityClassName, at("priorityClassName")...)
	put(k.PodAnnotations != nil, k.PodAnnotations, "spec", "template", "metadata", "annotations")
	if u.GetKind() == "Deployment" {
		put(k.ReplicaCount != nil, k.ReplicaCount, "spec", "replicas")
		put(k.Strategy != nil, k.Strategy, "spec", "strategy")
	}
	if err != nil {
		return err
	}
	if err := appendTo(u, k.Volumes, at("volumes")...); err != nil {
		return err
	}
	return applyToContainer(u, k)
}

// applyToContainer changes the component's own container, which is the first.
func applyToContainer(u *unstructured.Unstructured, k *iop.Kubernetes) error {
	path := []string{"spec", "template", "spec", "containers"}
	containers, _, err := unstructured.NestedSlice(u.Object, path...)
	if err != nil || len(containers) == 0 {
		return err
	}
	fields, _ := containers[0].(map[string]any)
	container := &unstructured.Unstructured{Object: fields}
	if k.Resources != nil {
		delete(fields, "resources")
		err = overlayAt(container, k.Resources, "resources")
	}
	if err == nil && k.ReadinessProbe != nil {
		delete(fields, "readinessProbe")
		err = overlayAt(container, k.ReadinessProbe, "readinessProbe")
	}
	if err == nil && k.ImagePullPolicy != "" {
		err = overlayAt(container, k.ImagePullPolicy, "imagePullPolicy")
	}
	if err == nil {
		err = appendTo(container, k.Env, "env")
	}
	if err == nil {
		err = appendTo(container, k.VolumeMounts, "volumeMounts")
	}
	if err != nil {
		return err
	}
	containers[0] = fields
	return unstructured.SetNestedSlice(u.Object, containers, path...)
}

// appendTo adds items to a list, in the place of those of the same name.
func appendTo[T any](u *unstructured.Unstructured, items []T, path ...string) error {
	if len(items) == 0 {
		return nil
	}
	list, _, err := unstructured.NestedSlice(u.Object, path...)
	if err != nil {
		return err
	}
	for _, item := range items {
		data, err := json.Marshal(item)
		if err != nil {
			return err
		}
		var value any
		if err := unmarshal(data, &value); err != nil {
			return err
		}
		name := value.(map[string]any)["name"]
		at := slices.IndexFunc(list, func(o any) bool {
			object, _ := o.(map[string]any)
			return object["name"] == name
		})
		if at >= 0 && path[len(path)-1] != "volumeMounts" {
			list[at] = value
		} else {
			list = append(list, value)
		}
	}
	return unstructured.SetNestedSlice(u.Object, list, path...)
}

func applyToService(u *unstructured.Unstructured, k *iop.Kubernetes) error {
	if k.ServiceAnnotations != nil {
		if err := overlayAt(u, k.ServiceAnnotations, "metadata", "annotations"); err != nil {
			return err
		}
	}
	if k.Service == nil {
		return nil
	}
	return overlayAt(u, k.Service, "spec")
}
