package analysis

import (
	"maps"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Workload is what runs, or will run when a file is applied.
type Workload struct {
	Namespace, Name string
	// Labels, with those of the topology.
	Labels         map[string]string
	ServiceAccount string
	Resource       *Resource
	// Pod is nil for a template and for what is no pod.
	Pod *corev1.Pod
	// Spec is nil for a WorkloadEntry.
	Spec *corev1.PodSpec
}

// Names of labels.
const (
	LabelDataplaneMode = "istio.io/dataplane-mode"
	LabelUseWaypoint   = "istio.io/use-waypoint"
	LabelGatewayName   = "gateway.networking.k8s.io/gateway-name"
	LabelInjection     = "istio-injection"
	LabelRevision      = "istio.io/rev"
	LabelInject        = "sidecar.istio.io/inject"
)

func (s *Snapshot) indexWorkloads() {
	s.workloads = map[string][]*Workload{}
	add := func(w *Workload) { s.workloads[w.Namespace] = append(s.workloads[w.Namespace], w) }
	for r, p := range All[*corev1.Pod](s) {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		add(&Workload{Namespace: p.Namespace, Name: p.Name, Labels: s.withTopology(p), ServiceAccount: p.Spec.ServiceAccountName, Resource: r, Pod: p, Spec: &p.Spec})
	}
	template := func(r *Resource, t *corev1.PodTemplateSpec) {
		// Of what runs, the pods tell.
		if !r.Live() {
			add(&Workload{Namespace: r.Namespace, Name: r.Name, Labels: t.Labels, ServiceAccount: t.Spec.ServiceAccountName, Resource: r, Spec: &t.Spec})
		}
	}
	for r, d := range All[*appsv1.Deployment](s) {
		template(r, &d.Spec.Template)
	}
	for r, d := range All[*appsv1.StatefulSet](s) {
		template(r, &d.Spec.Template)
	}
	for r, d := range All[*appsv1.DaemonSet](s) {
		template(r, &d.Spec.Template)
	}
	for r, we := range All[*networkingv1.WorkloadEntry](s) {
		labels := maps.Clone(we.Spec.GetLabels())
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, we.Labels)
		add(&Workload{Namespace: we.Namespace, Name: we.Name, Labels: labels, ServiceAccount: we.Spec.GetServiceAccount(), Resource: r})
	}
}

// withTopology adds to a pod's labels those of where its node is, which subsets may be about.
func (s *Snapshot) withTopology(p *corev1.Pod) map[string]string {
	node, _, ok := Find[*corev1.Node](s, "", p.Spec.NodeName)
	if !ok {
		return p.Labels
	}
	out := maps.Clone(p.Labels)
	if out == nil {
		out = map[string]string{}
	}
	for _, name := range []string{"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"} {
		if value := node.Labels[name]; value != "" && out[name] == "" {
			out[name] = value
		}
	}
	return out
}

// Workloads returns those of a namespace; the empty name is all.
func (s *Snapshot) Workloads(namespace string) []*Workload {
	if namespace != "" {
		return s.workloads[namespace]
	}
	var out []*Workload
	for _, name := range slices.Sorted(maps.Keys(s.workloads)) {
		out = append(out, s.workloads[name]...)
	}
	return out
}

// Select returns those of a namespace, or all, that have the selector's labels. An empty selector selects all.
func (s *Snapshot) Select(namespace string, selector map[string]string) []*Workload {
	var out []*Workload
	for _, w := range s.Workloads(namespace) {
		if Matches(selector, w.Labels) {
			out = append(out, w)
		}
	}
	return out
}

// Matches tells whether all of the selector's labels are there.
func Matches(selector, labels map[string]string) bool {
	for name, value := range selector {
		if have, ok := labels[name]; !ok || have != value {
			return false
		}
	}
	return true
}

// AmbientNamespace tells whether a namespace is labelled for the ambient mesh.
func (s *Snapshot) AmbientNamespace(namespace string) bool {
	ns, _, ok := Find[*corev1.Namespace](s, "", namespace)
	return ok && ns.Labels[LabelDataplaneMode] == "ambient"
}

// InAmbient tells whether a workload is meant to be part of the ambient mesh.
func (s *Snapshot) InAmbient(w *Workload) bool {
	if w.Spec == nil || w.Spec.HostNetwork || w.Sidecar() {
		return false
	}
	switch w.Labels[LabelDataplaneMode] {
	case "ambient":
		return true
	case "":
		return s.AmbientNamespace(w.Namespace)
	}
	return false
}

// Sidecar tells whether a workload has a proxy of its own.
func (w *Workload) Sidecar() bool {
	if w.Spec == nil || w.Gateway() {
		return false
	}
	isProxy := func(c corev1.Container) bool { return c.Name == "istio-proxy" }
	return slices.ContainsFunc(w.Spec.Containers, isProxy) || slices.ContainsFunc(w.Spec.InitContainers, isProxy)
}

// Gateway tells whether a workload is a gateway's or a waypoint's.
func (w *Workload) Gateway() bool {
	return w.Labels[LabelGatewayName] != "" || w.Labels["gateway.istio.io/managed"] != "" || w.Labels["istio"] == "ingressgateway" || w.Labels["istio"] == "egressgateway"
}

// SystemNamespace tells whether a namespace is the cluster's or the mesh's own.
func (s *Snapshot) SystemNamespace(name string) bool {
	switch name {
	case "kube-system", "kube-public", "kube-node-lease", "local-path-storage", s.IstioNamespace:
		return true
	}
	return false
}
