package runtime

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

func (v *volumes) envFrom(from corev1.EnvFromSource) (map[string]string, error) {
	out := map[string]string{}
	get := func(kind, name string, optional *bool) (any, error) {
		o, ok := v.pod.runtime.cfg.Store.Get(store.Key{Kind: kind, Namespace: v.pod.object.Namespace, Name: name})
		if !ok && (optional == nil || !*optional) {
			return nil, fmt.Errorf("envFrom: %s %s does not exist", kind, name)
		}
		return o, nil
	}
	if ref := from.ConfigMapRef; ref != nil {
		o, err := get("ConfigMap", ref.Name, ref.Optional)
		if cm, ok := o.(*corev1.ConfigMap); ok {
			maps.Copy(out, cm.Data)
		}
		return out, err
	}
	if ref := from.SecretRef; ref != nil {
		o, err := get("Secret", ref.Name, ref.Optional)
		if secret, ok := o.(*corev1.Secret); ok {
			for key, value := range secretData(secret) {
				out[key] = string(value)
			}
		}
		return out, err
	}
	return out, nil
}

func (v *volumes) valueFrom(source *corev1.EnvVarSource, spec *corev1.Container) (string, error) {
	switch {
	case source.FieldRef != nil:
		return v.field(source.FieldRef.FieldPath)
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		values, err := v.envFrom(corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref.LocalObjectReference, Optional: ref.Optional}})
		return keyOf(values, ref.Key, ref.Optional, err)
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		values, err := v.envFrom(corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref.LocalObjectReference, Optional: ref.Optional}})
		return keyOf(values, ref.Key, ref.Optional, err)
	case source.ResourceFieldRef != nil:
		// Whole units, rounded up: processors, or bytes.
		limit := spec.Resources.Limits[corev1.ResourceName(strings.TrimPrefix(source.ResourceFieldRef.Resource, "limits."))]
		return strconv.FormatInt(limit.Value(), 10), nil
	}
	return "", errors.New("this kind of source does not exist in the sandbox")
}

func keyOf(values map[string]string, key string, optional *bool, err error) (string, error) {
	value, ok := values[key]
	if err == nil && !ok && (optional == nil || !*optional) {
		err = fmt.Errorf("key %s does not exist", key)
	}
	return value, err
}
