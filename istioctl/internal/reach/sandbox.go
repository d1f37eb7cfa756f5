//go:build linux

package reach

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/sandbox"
)

// local is a place on this machine.
type local struct{ client *sandbox.Client }

// Sandbox returns the mesh of a sandbox, by its name or, with a slash, by the directory of its state. namespace is that of names that
// have none.
func Sandbox(name, namespace string) (*Mesh, error) {
	dir := name
	if !strings.Contains(name, "/") {
		dir = sandbox.StateDir(name)
	}
	client, err := sandbox.Connect(dir)
	if err != nil {
		return nil, err
	}
	return &Mesh{place: &local{client}, Default: namespace}, nil
}

func (l *local) pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	meant, err := labels.Parse(selector)
	if err != nil {
		return nil, err
	}
	all, err := l.client.List(ctx, "Pod", namespace)
	if err != nil {
		return nil, err
	}
	var out []Pod
	for _, raw := range all {
		var p corev1.Pod
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, fmt.Errorf("pod: %w", err)
		}
		if meant.Matches(labels.Set(p.Labels)) {
			out = append(out, podOf(&p))
		}
	}
	return out, nil
}

func (l *local) pod(ctx context.Context, namespace, name string) (Pod, error) {
	pods, err := l.pods(ctx, namespace, "")
	if err != nil {
		return Pod{}, err
	}
	for _, p := range pods {
		if p.Name == name {
			return p, nil
		}
	}
	return Pod{}, ErrNotFound
}

func (l *local) selector(ctx context.Context, kind, namespace, name string) (string, error) {
	o, err := l.find(ctx, kind, namespace, name)
	if err != nil {
		return "", err
	}
	if kind == "service" {
		set, _, err := unstructured.NestedStringMap(o.Object, "spec", "selector")
		if err == nil && len(set) == 0 {
			err = fmt.Errorf("the service has no selector, so no pods are its own")
		}
		return labels.SelectorFromSet(set).String(), err
	}
	raw, _, err := unstructured.NestedMap(o.Object, "spec", "selector")
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(raw)
	if err != nil {
		return "", err
	}
	var selector metav1.LabelSelector
	if err := json.Unmarshal(data, &selector); err != nil {
		return "", fmt.Errorf("its selector: %w", err)
	}
	return metav1.FormatLabelSelector(&selector), nil
}

func (l *local) dial(ctx context.Context, pod Pod, port int) (net.Conn, error) {
	return l.client.Dial(ctx, pod.Namespace, pod.Name, port)
}

// called is how the sandbox calls a kind: there are two Gateways.
func called(kind Kind) string {
	if kind.Group == "" {
		return kind.Name
	}
	return kind.Name + "." + kind.Group
}

func (l *local) objects(ctx context.Context, kind, namespace string) ([]unstructured.Unstructured, error) {
	all, err := l.client.List(ctx, kind, namespace)
	if err != nil {
		return nil, err
	}
	out := make([]unstructured.Unstructured, len(all))
	for i, raw := range all {
		if err := json.Unmarshal(raw, &out[i].Object); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
	}
	return out, nil
}

// logs are whole: the sandbox neither keeps those of before a restart nor cuts any.
func (l *local) logs(ctx context.Context, pod Pod, which Logs) (io.ReadCloser, error) {
	if which.Previous {
		return nil, ErrNotFound
	}
	return l.client.Logs(ctx, pod.Namespace, pod.Name, which.Container, false, which.Since)
}

func (l *local) each(ctx context.Context, kind kube.Kind, namespace string, take func([]byte)) error {
	all, err := l.client.List(ctx, called(Kind{Group: kind.GVK.Group, Name: kind.GVK.Kind}), namespace)
	for _, raw := range all {
		take(raw)
	}
	return err
}

func (l *local) find(ctx context.Context, kind, namespace, name string) (*unstructured.Unstructured, error) {
	all, err := l.objects(ctx, kind, namespace)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].GetName() == name {
			return &all[i], nil
		}
	}
	return nil, ErrNotFound
}

func (l *local) list(ctx context.Context, kind Kind, namespace string) ([]unstructured.Unstructured, error) {
	return l.objects(ctx, called(kind), namespace)
}

func (l *local) get(ctx context.Context, kind Kind, namespace, name string) (*unstructured.Unstructured, error) {
	return l.find(ctx, called(kind), namespace, name)
}

func (l *local) apply(ctx context.Context, _ Kind, o *unstructured.Unstructured) error {
	data, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	_, err = l.client.ApplyTo(ctx, o.GetNamespace(), "istioctl", data)
	return err
}

func (l *local) label(ctx context.Context, kind Kind, namespace, name string, labels map[string]*string) error {
	return l.client.Label(ctx, called(kind), namespace, name, labels)
}

func (l *local) remove(ctx context.Context, kind Kind, namespace, name string) error {
	if _, err := l.find(ctx, called(kind), namespace, name); err != nil {
		return err
	}
	return l.client.DeleteObject(ctx, called(kind), namespace, name)
}
