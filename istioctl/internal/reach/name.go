package reach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// name is how people name a pod: pod, pod.namespace, kind/name, kind/name.namespace.
type name struct{ kind, name, namespace string }

// parseName reads a name; namespace is that of names that have none.
func parseName(text, namespace string) (name, error) {
	n := name{kind: "pod", namespace: namespace}
	kind, rest, slash := strings.Cut(text, "/")
	if !slash {
		kind, rest = "pod", text
	}
	full, ok := kinds()[strings.ToLower(kind)]
	if !ok {
		return n, fmt.Errorf("%q: of a %s no pods are known; name a pod, deploy/NAME, daemonset/NAME, statefulset/NAME, replicaset/NAME, job/NAME, svc/NAME or gateway/NAME", text, kind)
	}
	n.kind, n.name = full, rest
	// A namespace has no dots, so it is what follows the last.
	if i := strings.LastIndex(rest, "."); i >= 0 {
		n.name, n.namespace = rest[:i], rest[i+1:]
	}
	if n.name == "" || n.namespace == "" {
		return n, fmt.Errorf("%q names no pod; the forms are POD, POD.NAMESPACE and deploy/NAME", text)
	}
	return n, nil
}

// kinds maps what people type to the kind.
func kinds() map[string]string {
	out := map[string]string{}
	for kind, short := range map[string]string{
		"pod": "po", "deployment": "deploy", "daemonset": "ds", "statefulset": "sts", "replicaset": "rs", "job": "", "service": "svc", "gateway": "gtw",
	} {
		out[kind], out[kind+"s"] = kind, kind
		if short != "" {
			out[short] = kind
		}
	}
	return out
}

// Find returns the pod that a name means. Of several it is the first that is ready.
func (m *Mesh) Find(ctx context.Context, text string) (Pod, error) {
	n, err := parseName(text, m.Default)
	if err != nil {
		return Pod{}, err
	}
	if n.kind == "pod" {
		return m.findPod(ctx, n)
	}
	selector := "gateway.networking.k8s.io/gateway-name=" + n.name
	if n.kind != "gateway" {
		bounded, cancel := m.bound(ctx)
		defer cancel()
		selector, err = m.place.selector(bounded, n.kind, n.namespace, n.name)
		if errors.Is(err, ErrNotFound) {
			return Pod{}, fmt.Errorf("there is no %s %s in namespace %s", n.kind, n.name, n.namespace)
		}
		if err != nil {
			return Pod{}, fmt.Errorf("%s %s/%s: %w", n.kind, n.namespace, n.name, late(bounded, err))
		}
	}
	pods, err := m.Pods(ctx, n.namespace, selector)
	if err != nil {
		return Pod{}, err
	}
	if len(pods) == 0 {
		return Pod{}, fmt.Errorf("%s %s in namespace %s has no pod that runs", n.kind, n.name, n.namespace)
	}
	if i := slices.IndexFunc(pods, func(p Pod) bool { return p.Ready }); i >= 0 {
		return pods[i], nil
	}
	return pods[0], nil
}

func (m *Mesh) findPod(ctx context.Context, n name) (Pod, error) {
	bounded, cancel := m.bound(ctx)
	defer cancel()
	pod, err := m.place.pod(bounded, n.namespace, n.name)
	switch {
	case errors.Is(err, ErrNotFound):
		return pod, fmt.Errorf("there is no pod %s in namespace %s%s", n.name, n.namespace, m.suggestion(bounded, n))
	case err != nil:
		return pod, fmt.Errorf("pod %s/%s: %w", n.namespace, n.name, late(bounded, err))
	case !pod.Running:
		return pod, fmt.Errorf("pod %s does not run", pod)
	}
	return pod, nil
}

// suggestion is what may have been meant.
func (m *Mesh) suggestion(ctx context.Context, n name) string {
	if _, err := m.place.selector(ctx, "deployment", n.namespace, n.name); err == nil {
		return fmt.Sprintf("; did you mean deploy/%s.%s?", n.name, n.namespace)
	}
	pods, err := m.place.pods(ctx, n.namespace, "")
	if err != nil {
		return ""
	}
	for _, p := range pods {
		if strings.HasPrefix(p.Name, n.name) || strings.HasPrefix(n.name, p.Name) || sameWorkload(p.Name, n.name) {
			return fmt.Sprintf("; did you mean %s?", p)
		}
	}
	return ""
}

// sameWorkload tells whether two names differ only in what is generated at the end, as after a pod was replaced.
func sameWorkload(a, b string) bool {
	cut := func(s string) string {
		parts := strings.Split(s, "-")
		if len(parts) < 3 {
			return s
		}
		return strings.Join(parts[:len(parts)-2], "-")
	}
	return cut(a) == cut(b) && cut(a) != a
}
