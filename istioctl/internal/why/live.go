package why

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// ReadMesh reads the objects of a mesh that runs, without what nobody asks about.
func ReadMesh(ctx context.Context, mesh *reach.Mesh, istioNamespace string) (*World, error) {
	w := NewWorld()
	w.secrets = liveSecrets(ctx, mesh)
	for _, kind := range kube.Kinds() {
		if kind.GVK.Group == "" && slices.Contains([]string{"Secret", "ConfigMap", "ServiceAccount"}, kind.GVK.Kind) || kind.GVK.Kind == "ReplicaSet" {
			continue
		}
		seen := map[string]bool{}
		err := mesh.Each(ctx, kind, "", func(o kube.Object, problems []kube.ObjectError) {
			for _, p := range problems {
				if !p.Warning {
					w.Notes = append(w.Notes, "left out: "+p.Error())
				}
			}
			if o == nil || seen[o.GetNamespace()+"/"+o.GetName()] {
				return
			}
			seen[o.GetNamespace()+"/"+o.GetName()] = true
			slim(o)
			w.Objects = append(w.Objects, o)
		})
		if err != nil && !errors.Is(err, reach.ErrNotFound) {
			return nil, err
		}
	}
	if err := w.livePolicies(ctx, mesh); err != nil {
		return nil, err
	}
	w.backendAuthorities()
	served, err := mesh.Served(ctx, "networking.istio.io")
	w.Allocate = served == nil && err == nil // without an API server the control plane gives addresses to ServiceEntries itself
	config, err := mesh.Read(ctx, reach.Kind{Version: "v1", Name: "ConfigMap", Plural: "configmaps"}, istioNamespace, "istio")
	switch {
	case err == nil:
		data, _ := config.Object["data"].(map[string]any)
		text, _ := data["mesh"].(string)
		w.MeshConfig = []byte(text)
	case !errors.Is(err, reach.ErrNotFound):
		return nil, err
	default:
		w.Notes = append(w.Notes, fmt.Sprintf("there is no ConfigMap istio in namespace %s: the defaults of the mesh configuration are taken", istioNamespace))
	}
	return w, nil
}

// backendAuthorities reads what BackendTLSPolicies name, each by its name: without it nobody would seem to be trusted. What may not be
// read is told.
func (w *World) backendAuthorities() {
	seen := map[credential.Source]bool{}
	for _, o := range slices.Clone(w.Objects) {
		p, ok := o.(*gatewayv1.BackendTLSPolicy)
		if !ok {
			continue
		}
		for _, ref := range gateway.BackendTLSCredentials(p) {
			if seen[ref.Source] {
				continue
			}
			seen[ref.Source] = true
			data, err := w.secrets(ref.Source.Kind, ref.Source.Namespace, ref.Source.Name)
			meta := metav1.ObjectMeta{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
			switch {
			case errors.Is(err, errUnreadable):
				w.Notes = append(w.Notes, fmt.Sprintf("BackendTLSPolicy %s/%s is taken for one without authorities: %s cannot be read: %v", p.Namespace, p.Name, ref.Source, err))
			case err != nil: // it is not there
			case ref.Source.Kind == credential.ConfigMap:
				w.Objects = append(w.Objects, &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: meta, BinaryData: data})
			default:
				w.Objects = append(w.Objects, &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: meta, Data: data})
			}
		}
	}
}

// livePolicies reads the NetworkPolicies; some places have none.
func (w *World) livePolicies(ctx context.Context, mesh *reach.Mesh) error {
	list, err := mesh.List(ctx, reach.Kind{Group: "networking.k8s.io", Version: "v1", Name: "NetworkPolicy", Plural: "networkpolicies"}, "")
	if errors.Is(err, reach.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range list {
		var p networkingv1.NetworkPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list[i].Object, &p); err != nil {
			w.Notes = append(w.Notes, fmt.Sprintf("left out: NetworkPolicy %s/%s: %v", list[i].GetNamespace(), list[i].GetName(), err))
			continue
		}
		w.NetworkPolicies = append(w.NetworkPolicies, &p)
	}
	return nil
}

// slim takes away what is not looked at, which of pods is nearly all.
func slim(o kube.Object) {
	o.SetManagedFields(nil)
	switch o := o.(type) {
	case *corev1.Pod:
		slimPod(&o.Spec)
		o.Status.ContainerStatuses, o.Status.InitContainerStatuses, o.Status.EphemeralContainerStatuses = nil, nil, nil
		o.Annotations = istios(o.Annotations)
	case *appsv1.Deployment:
		slimPod(&o.Spec.Template.Spec)
		o.Annotations = istios(o.Annotations)
	case *appsv1.StatefulSet:
		slimPod(&o.Spec.Template.Spec)
	case *appsv1.DaemonSet:
		slimPod(&o.Spec.Template.Spec)
	case *corev1.Node:
		o.Status = corev1.NodeStatus{}
	}
}

func slimPod(s *corev1.PodSpec) {
	small := corev1.PodSpec{ServiceAccountName: s.ServiceAccountName, NodeName: s.NodeName, HostNetwork: s.HostNetwork}
	for _, c := range s.Containers {
		small.Containers = append(small.Containers, corev1.Container{Name: c.Name, Ports: c.Ports})
	}
	for _, c := range s.InitContainers {
		small.InitContainers = append(small.InitContainers, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
	}
	*s = small
}

// istios are the annotations of the mesh.
func istios(annotations map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range annotations {
		if strings.Contains(k, "istio.io/") {
			out[k] = v
		}
	}
	return out
}
