// Package objects reads the objects of a mesh that say what its proxies do.
package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// together is how many kinds are read at a time, and patience how long all may take.
const (
	together = 4
	patience = 2 * time.Minute
)

// Set is what was read.
type Set struct {
	Objects  []kube.Object
	Settings simulate.Settings
	// Unread are the kinds that could not be read, and why.
	Unread []string
}

// without are the kinds that say nothing about traffic, or are secret.
func without() []string {
	return []string{"Secret", "ConfigMap", "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "ServiceAccount", "Node", "EndpointSlice"}
}

// Read reads the objects of all namespaces, as who describes one must know who refers to it. Kinds that the cluster does not serve are
// left out; those that may not be read are too, which is told.
func Read(ctx context.Context, mesh *reach.Mesh, istioNamespace string) (*Set, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kinds := slices.DeleteFunc(kube.Kinds(), func(k kube.Kind) bool { return slices.Contains(without(), k.GVK.Kind) })
	found, problems := make([][]kube.Object, len(kinds)), make([]error, len(kinds))
	var running sync.WaitGroup
	slots := make(chan struct{}, together)
	for i, kind := range kinds {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			problems[i] = mesh.Each(ctx, kind, "", func(o kube.Object, _ []kube.ObjectError) {
				if o != nil {
					found[i] = append(found[i], reduced(o))
				}
			})
		})
	}
	running.Wait()
	out := &Set{}
	for i, kind := range kinds {
		switch err := problems[i]; {
		case err == nil, errors.Is(err, reach.ErrNotFound):
		case slices.Contains([]string{"Pod", "Service", "Namespace"}, kind.GVK.Kind):
			return nil, err
		default:
			out.Unread = append(out.Unread, fmt.Sprintf("%s: %v", kind.GVK.Kind, err))
		}
		out.Objects = append(out.Objects, found[i]...)
	}
	config, err := mesh.Read(ctx, reach.ConfigMap(), istioNamespace, "istio")
	switch {
	case err == nil:
		data, _ := config.Object["data"].(map[string]any)
		text, _ := data["mesh"].(string)
		out.Settings.MeshConfig = []byte(text)
	case !errors.Is(err, reach.ErrNotFound):
		out.Unread = append(out.Unread, err.Error())
	}
	return out, nil
}

// reduced takes out of an object what is big and not needed.
func reduced(o kube.Object) kube.Object {
	o.SetManagedFields(nil)
	if pod, ok := o.(*corev1.Pod); ok {
		pod.Spec.Volumes = nil
		for i := range pod.Spec.Containers {
			c := &pod.Spec.Containers[i]
			pod.Spec.Containers[i] = corev1.Container{Name: c.Name, Ports: c.Ports}
		}
	}
	return o
}
