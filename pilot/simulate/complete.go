package simulate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Names that enrolment goes by.
const (
	labelDataplaneMode    = "istio.io/dataplane-mode"
	annotationRedirection = "ambient.istio.io/redirection"
	annotationSidecar     = "sidecar.istio.io/status"
	labelNamespaceName    = "kubernetes.io/metadata.name"
)

// Completer plays the parts of a cluster that give objects what manifests do not have: pods of Deployments, addresses, the pods and
// the address of a Gateway, enrolment. What an object says itself stays. An object is given the same in every call, so that two states
// of a mesh can be compared.
type Completer struct {
	// Assume is whether a namespace that no object describes counts as one with the label istio.io/dataplane-mode=ambient.
	Assume bool
	// RootNamespace is never assumed to be in the mesh.
	RootNamespace string
	// Domain of the cluster.
	Domain string

	pods, services, public *book
}

// NewCompleter returns one whose addresses are in 10.244.0.0/16 for pods, 10.96.0.0/16 for Services, and 172.18.0.0/16 for load
// balancers.
func NewCompleter() *Completer {
	return &Completer{
		Assume: true, RootNamespace: "istio-system", Domain: "cluster.local",
		pods: newBook(10, 244), services: newBook(10, 96), public: newBook(172, 18),
	}
}

// Completed are objects as a cluster would have them.
type Completed struct {
	Objects []kube.Object
	// From has, for each object that was made, the one that it was made for, both as Kind namespace/name.
	From map[string]string
	// Notes say what was assumed.
	Notes []string
}

// completion is the work of one call.
type completion struct {
	*Completer
	out        Completed
	namespaces map[string]*corev1.Namespace
	byKey      map[string]kube.Object
	added      map[*corev1.Pod]bool
}

func keyOf(kind string, o metav1.Object) string {
	return kind + " " + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
}

// Complete returns the objects with what a cluster adds. The objects that are given are not changed.
func (c *Completer) Complete(objects []kube.Object) Completed {
	x := &completion{
		Completer: c, namespaces: map[string]*corev1.Namespace{}, byKey: map[string]kube.Object{}, added: map[*corev1.Pod]bool{},
		out: Completed{From: map[string]string{}},
	}
	for _, o := range objects {
		x.out.Objects = append(x.out.Objects, o.DeepCopyObject().(kube.Object))
	}
	for _, o := range x.out.Objects {
		gvk := o.GetObjectKind().GroupVersionKind()
		x.byKey[gvk.Group+"/"+keyOf(gvk.Kind, o)] = o
		x.reserve(o)
	}
	x.everyNamespace()
	x.classes()
	x.gateways()
	x.workloads()
	for _, o := range x.out.Objects {
		switch o := o.(type) {
		case *corev1.Service:
			x.service(o)
		case *corev1.Pod:
			x.pod(o)
		}
	}
	x.gatewayAddresses()
	return x.out
}

// reserve keeps the addresses that objects have.
func (x *completion) reserve(o kube.Object) {
	switch o := o.(type) {
	case *corev1.Service:
		x.services.reserve(o.Spec.ClusterIP)
	case *corev1.Pod:
		x.pods.reserve(o.Status.PodIP)
	case *corev1.Namespace:
		x.namespaces[o.Name] = o
	}
}

func (x *completion) note(format string, args ...any) {
	x.out.Notes = append(x.out.Notes, fmt.Sprintf(format, args...))
}

// add is for an object that was made for another.
func (x *completion) add(o kube.Object, owner string) {
	kind := o.GetObjectKind().GroupVersionKind()
	x.byKey[kind.Group+"/"+keyOf(kind.Kind, o)] = o
	x.out.From[keyOf(kind.Kind, o)] = owner
	x.out.Objects = append(x.out.Objects, o)
}

// everyNamespace makes those that objects are in.
func (x *completion) everyNamespace() {
	var assumed []string
	for _, o := range x.out.Objects {
		name := o.GetNamespace()
		if name == "" || x.namespaces[name] != nil {
			continue
		}
		ns := &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		if x.Assume && name != x.RootNamespace && name != "kube-system" {
			ns.Labels[labelDataplaneMode] = "ambient"
			assumed = append(assumed, name)
		}
		x.namespaces[name] = ns
		x.out.Objects = append(x.out.Objects, ns)
	}
	for _, ns := range x.namespaces {
		metav1.SetMetaDataLabel(&ns.ObjectMeta, labelNamespaceName, ns.Name)
	}
	if len(assumed) > 0 {
		slices.Sort(assumed)
		x.note("no file has the Namespace %s: assumed to be labelled %s=ambient", strings.Join(assumed, ", "), labelDataplaneMode)
	}
}

// classes adds those that a mesh has from the start.
func (x *completion) classes() {
	for _, class := range deploy.BuiltinClasses() {
		if x.byKey[gatewayv1.GroupName+"/"+keyOf("GatewayClass", class)] == nil {
			x.byKey[gatewayv1.GroupName+"/"+keyOf("GatewayClass", class)] = class
			x.out.Objects = append(x.out.Objects, class)
		}
	}
}

// controller is who looks after a Gateway; empty when its class is not there.
func (x *completion) controller(gw *gatewayv1.Gateway) gatewayv1.GatewayController {
	class, ok := x.byKey[gatewayv1.GroupName+"/GatewayClass "+string(gw.Spec.GatewayClassName)].(*gatewayv1.GatewayClass)
	if !ok {
		return ""
	}
	return class.Spec.ControllerName
}

// untold is whether nobody has written a status yet: one without addresses says that there are none.
func untold(gw *gatewayv1.Gateway) bool {
	return len(gw.Status.Addresses) == 0 && len(gw.Status.Conditions) == 0
}

// gateways deploys those that a control plane would.
func (x *completion) gateways() {
	among := gateway.ListenerSetsAmong{Namespaces: x.namespaces}
	for _, o := range x.out.Objects {
		if set, ok := o.(*gatewayv1.ListenerSet); ok {
			among.Sets = append(among.Sets, set)
		}
	}
	for _, o := range slices.Clone(x.out.Objects) {
		gw, ok := o.(*gatewayv1.Gateway)
		if !ok || !deploy.Deploys(x.controller(gw)) || !deploy.Managed(gw) || !untold(gw) {
			continue
		}
		made, err := deploy.Render(deploy.Request{Gateway: gw, Listeners: gateway.SetListeners(among, gw), Controller: x.controller(gw)})
		if err != nil {
			x.note("Gateway %s/%s is not deployed: %v", gw.Namespace, gw.Name, err)
			continue
		}
		for _, part := range []kube.Object{made.Service, made.Deployment} {
			kind := part.GetObjectKind().GroupVersionKind()
			if x.byKey[kind.Group+"/"+keyOf(kind.Kind, part)] == nil {
				x.add(part, keyOf("Gateway", gw))
			}
		}
	}
}

// gatewayAddresses gives each Gateway that was deployed the addresses of its Service.
func (x *completion) gatewayAddresses() {
	for _, o := range x.out.Objects {
		gw, ok := o.(*gatewayv1.Gateway)
		if !ok || !untold(gw) {
			continue
		}
		names := deploy.NamesOf(gw, x.controller(gw))
		if s, ok := x.byKey["/Service "+gw.Namespace+"/"+names.Deployment].(*corev1.Service); ok {
			gw.Status.Addresses = deploy.Addresses(gw, x.controller(gw), s, x.Domain)
		}
	}
}

// service gives a Service its addresses.
func (x *completion) service(s *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIP = x.services.of(s.Namespace + "/" + s.Name).String()
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) == 0 {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: x.public.of(s.Namespace + "/" + s.Name).String()}}
	}
}

// pod runs a pod that nobody has run yet.
func (x *completion) pod(p *corev1.Pod) {
	if p.Status.PodIP != "" || len(p.Status.PodIPs) > 0 || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return
	}
	p.Spec.ServiceAccountName = cmp.Or(p.Spec.ServiceAccountName, "default")
	p.Spec.NodeName = cmp.Or(p.Spec.NodeName, "node")
	p.Status.PodIP = x.pods.of(p.Namespace + "/" + p.Name).String()
	p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	p.Status.Phase = corev1.PodRunning
	if len(p.Status.Conditions) == 0 {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	mode, set := p.Labels[labelDataplaneMode]
	if ns := x.namespaces[p.Namespace]; !set && ns != nil {
		mode = ns.Labels[labelDataplaneMode]
	}
	if mode == "ambient" && !p.Spec.HostNetwork && p.Annotations[annotationSidecar] == "" && p.Annotations[annotationRedirection] == "" {
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, annotationRedirection, "enabled")
	}
}

// selects is whether a selector of a workload selects labels; one that is wrong selects nothing.
func selects(s *metav1.LabelSelector, set map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && !selector.Empty() && selector.Matches(labels.Set(set))
}
