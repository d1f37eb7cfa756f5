// Package manifest reads YAML and JSON manifests into objects and writes objects as YAML.
package manifest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Object is any Kubernetes object: typed for the kinds that the sandbox acts on, unstructured for the rest.
type Object interface {
	metav1.Object
	runtime.Object
}

// Error says what is wrong with one object of a manifest.
type Error struct {
	File, Kind, Namespace, Name, Field, Reason string
}

func (e *Error) Error() string {
	object := e.Kind
	if e.Name != "" {
		object += " " + strings.TrimPrefix(e.Namespace+"/"+e.Name, "/")
	}
	parts := []string{}
	for _, p := range []string{e.File, object, e.Field, e.Reason} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}

// typed returns an empty object of a kind that the sandbox acts on.
func typed(apiVersion, kind string) Object {
	switch apiVersion + "/" + kind {
	case "v1/Pod":
		return &corev1.Pod{}
	case "v1/Service":
		return &corev1.Service{}
	case "v1/Namespace":
		return &corev1.Namespace{}
	case "v1/Node":
		return &corev1.Node{}
	case "v1/ServiceAccount":
		return &corev1.ServiceAccount{}
	case "v1/ConfigMap":
		return &corev1.ConfigMap{}
	case "v1/Secret":
		return &corev1.Secret{}
	case "apps/v1/Deployment":
		return &appsv1.Deployment{}
	case "apps/v1/ReplicaSet":
		return &appsv1.ReplicaSet{}
	case "apps/v1/StatefulSet":
		return &appsv1.StatefulSet{}
	case "apps/v1/DaemonSet":
		return &appsv1.DaemonSet{}
	case "discovery.k8s.io/v1/EndpointSlice":
		return &discoveryv1.EndpointSlice{}
	}
	return nil
}

// Decode reads every document of data; objects that name no namespace are in "default". What is wrong with one object does
// not keep the others from being returned.
func Decode(file string, data []byte) ([]Object, []error) { return DecodeInto("default", file, data) }

// DecodeInto is Decode with another namespace for objects that name none.
func DecodeInto(namespace, file string, data []byte) ([]Object, []error) {
	var objects []Object
	var errs []error
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, errs
		}
		if err != nil {
			return objects, append(errs, &Error{File: file, Reason: err.Error()})
		}
		found, bad := decodeDocument(namespace, file, doc)
		objects, errs = append(objects, found...), append(errs, bad...)
	}
}

func decodeDocument(namespace, file string, doc []byte) ([]Object, []error) {
	text, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, []error{&Error{File: file, Reason: err.Error()}}
	}
	if string(text) == "null" {
		return nil, nil
	}
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, []error{&Error{File: file, Reason: err.Error()}}
	}
	if head.Kind == "List" {
		var objects []Object
		var errs []error
		for _, item := range head.Items {
			found, bad := decodeDocument(namespace, file, item)
			objects, errs = append(objects, found...), append(errs, bad...)
		}
		return objects, errs
	}
	bad := func(field, reason string) []error {
		return []error{&Error{file, head.Kind, head.Metadata.Namespace, head.Metadata.Name, field, reason}}
	}
	switch {
	case head.Kind == "" || head.APIVersion == "":
		return nil, bad("kind", "apiVersion and kind are required")
	case head.Metadata.Name == "":
		return nil, bad("metadata.name", "required")
	}
	obj := typed(head.APIVersion, head.Kind)
	if obj == nil {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(text); err != nil {
			return nil, bad("", err.Error())
		}
		obj = u
	} else if err := yaml.UnmarshalStrict(text, obj); err != nil {
		return nil, bad("", strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: "))
	}
	if obj.GetNamespace() == "" && !ClusterScoped(head.Kind) {
		obj.SetNamespace(namespace)
	}
	if name := check(head.APIVersion, head.Kind, obj); name != nil {
		return nil, bad(name.field, name.reason)
	}
	dropServerFields(obj)
	return []Object{obj}, nil
}

// ClusterScoped says whether objects of a kind have no namespace.
func ClusterScoped(kind string) bool {
	switch kind {
	case "Namespace", "Node", "GatewayClass", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition",
		"PersistentVolume", "StorageClass", "PriorityClass", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration":
		return true
	}
	return false
}

// Encode writes obj as YAML. Typed objects must have their kind set.
func Encode(obj Object) ([]byte, error) {
	data, err := yaml.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	return data, nil
}
