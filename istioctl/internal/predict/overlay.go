package predict

import (
	"slices"

	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Apply returns the world after a change: objects are replaced or added, or taken away when remove is set. Neither world is modified.
// What a cluster has written into an object stays: its status and its addresses.
func Apply(before, change *why.World, remove bool) *why.World {
	after := before.Copy()
	o := overlay{world: after, at: map[string]int{}}
	for i, obj := range after.Objects {
		o.at[keyOf(obj)] = i
	}
	gone := map[string]bool{}
	for _, obj := range change.Objects {
		i, exists := o.at[keyOf(obj)]
		switch {
		case remove && exists:
			gone[keyOf(obj)] = true
			o.leave(after.Objects[i], gone)
		case remove:
		case exists:
			o.rollOut(after.Objects[i], obj, gone)
			after.Objects[i] = inherit(after.Objects[i], obj)
		default:
			o.at[keyOf(obj)] = len(after.Objects)
			after.Objects = append(after.Objects, obj)
		}
	}
	after.Objects = slices.DeleteFunc(after.Objects, func(obj kube.Object) bool {
		return gone[keyOf(obj)] || gone["Namespace "+obj.GetNamespace()]
	})
	after.NetworkPolicies = networkPolicies(before.NetworkPolicies, change.NetworkPolicies, remove)
	if !remove {
		after.Adopt(change)
	}
	o.enrol(before)
	return after
}

func keyOf(o kube.Object) string {
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "Namespace" {
		return "Namespace " + o.GetName()
	}
	return gvk.Group + "/" + gvk.Kind + " " + o.GetNamespace() + "/" + o.GetName()
}

// overlay is the work of one call.
type overlay struct {
	world *why.World
	at    map[string]int // of objects, by key
}

// leave takes away what belongs to an object that goes.
func (o *overlay) leave(obj kube.Object, gone map[string]bool) {
	if gw, ok := obj.(*gatewayv1.Gateway); ok {
		for _, other := range o.world.Objects {
			if other.GetNamespace() == gw.Namespace && other.GetLabels()["gateway.networking.k8s.io/gateway-name"] == gw.Name {
				gone[keyOf(other)] = true
			}
		}
	}
	o.rollOut(obj, nil, gone)
}

// rollOut takes away the pods of a workload whose template changes: new ones take their place.
func (o *overlay) rollOut(old, next kube.Object, gone map[string]bool) {
	selector, before := template(old)
	if selector == nil {
		return
	}
	_, after := template(next)
	if after != nil && equality.Semantic.DeepEqual(before.Labels, after.Labels) && equality.Semantic.DeepEqual(before.Annotations, after.Annotations) &&
		before.Spec.ServiceAccountName == after.Spec.ServiceAccountName && before.Spec.HostNetwork == after.Spec.HostNetwork && samePorts(&before.Spec, &after.Spec) {
		return
	}
	chosen, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || chosen.Empty() {
		return
	}
	for _, other := range o.world.Objects {
		if p, ok := other.(*corev1.Pod); ok && p.Namespace == old.GetNamespace() && chosen.Matches(labels.Set(p.Labels)) {
			gone[keyOf(p)] = true
		}
	}
}

func samePorts(a, b *corev1.PodSpec) bool {
	return slices.EqualFunc(a.Containers, b.Containers, func(x, y corev1.Container) bool { return equality.Semantic.DeepEqual(x.Ports, y.Ports) })
}

func template(o kube.Object) (*metav1.LabelSelector, *corev1.PodTemplateSpec) {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return o.Spec.Selector, &o.Spec.Template
	case *appsv1.StatefulSet:
		return o.Spec.Selector, &o.Spec.Template
	case *appsv1.DaemonSet:
		return o.Spec.Selector, &o.Spec.Template
	}
	return nil, nil
}

// inherit is the new object with what a cluster has written into the old one.
func inherit(old, next kube.Object) kube.Object {
	next = next.DeepCopyObject().(kube.Object)
	if made := next.GetCreationTimestamp(); made.IsZero() {
		next.SetCreationTimestamp(old.GetCreationTimestamp())
	}
	switch next := next.(type) {
	case *corev1.Service:
		if was, ok := old.(*corev1.Service); ok {
			if next.Spec.ClusterIP == "" {
				next.Spec.ClusterIP, next.Spec.ClusterIPs = was.Spec.ClusterIP, was.Spec.ClusterIPs
			}
			if len(next.Status.LoadBalancer.Ingress) == 0 {
				next.Status = was.Status
			}
		}
	case *gatewayv1.Gateway:
		if was, ok := old.(*gatewayv1.Gateway); ok && len(next.Status.Addresses) == 0 {
			next.Status = was.Status
		}
	case *corev1.Pod:
		if was, ok := old.(*corev1.Pod); ok && next.Status.PodIP == "" {
			next.Status = was.Status
			if next.Spec.NodeName == "" {
				next.Spec.NodeName = was.Spec.NodeName
			}
			for _, name := range []string{annotationRedirection} {
				if v := was.Annotations[name]; v != "" {
					metav1.SetMetaDataAnnotation(&next.ObjectMeta, name, v)
				}
			}
		}
	case *networkingv1.ServiceEntry:
		if was, ok := old.(*networkingv1.ServiceEntry); ok && len(next.Status.GetAddresses()) == 0 {
			proto.Merge(&next.Status, &was.Status)
		}
	}
	return next
}

func networkPolicies(before, change []*netv1.NetworkPolicy, remove bool) []*netv1.NetworkPolicy {
	out := slices.DeleteFunc(slices.Clone(before), func(have *netv1.NetworkPolicy) bool {
		return slices.ContainsFunc(change, func(p *netv1.NetworkPolicy) bool { return p.Namespace == have.Namespace && p.Name == have.Name })
	})
	if !remove {
		out = append(out, change...)
	}
	return out
}

const (
	annotationRedirection = "ambient.istio.io/redirection"
	labelMode             = "istio.io/dataplane-mode"
)

// enrol does what the CNI agents would: pods that run are enrolled or let go when the labels that say so change.
func (o *overlay) enrol(before *why.World) {
	was, is := modes(before.Objects), modes(o.world.Objects)
	pods := map[string]*corev1.Pod{}
	for _, obj := range before.Objects {
		if p, ok := obj.(*corev1.Pod); ok {
			pods[p.Namespace+"/"+p.Name] = p
		}
	}
	for i, obj := range o.world.Objects {
		p, ok := obj.(*corev1.Pod)
		if !ok || p.Status.PodIP == "" || p.Spec.HostNetwork {
			continue
		}
		old := pods[p.Namespace+"/"+p.Name]
		if old == nil {
			continue
		}
		if wanted := mode(p, is) == "ambient"; wanted != (mode(old, was) == "ambient") {
			p = p.DeepCopy()
			delete(p.Annotations, annotationRedirection)
			if wanted {
				metav1.SetMetaDataAnnotation(&p.ObjectMeta, annotationRedirection, "enabled")
			}
			o.world.Objects[i] = p
		}
	}
}

// modes are the labels of namespaces.
func modes(objects []kube.Object) map[string]string {
	out := map[string]string{}
	for _, obj := range objects {
		if ns, ok := obj.(*corev1.Namespace); ok {
			out[ns.Name] = ns.Labels[labelMode]
		}
	}
	return out
}

func mode(p *corev1.Pod, namespaces map[string]string) string {
	if m, ok := p.Labels[labelMode]; ok {
		return m
	}
	return namespaces[p.Namespace]
}
