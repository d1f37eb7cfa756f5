package cluster

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// sliceController makes the slices of services with a selector.
const sliceController = "endpointslice-controller.k8s.io"

// What is left of the objects, by kind:
//
//	all                         no managedFields, no last-applied annotation
//	Pod                         name, UID, labels, annotations of istio.io, owners, deletion; the node, account, host network, names and
//	                            ports of containers; phase, addresses, types and states of conditions, init containers that failed
//	Node                        labels, annotations of istio.io, taints, addresses, types and states of conditions
//	EndpointSlice               no annotations, and no endpoints that are pods where those are known from the pods and their services'
//	                            selectors; of others neither hints nor topology
//	Namespace, Service          all but finalizers
//	kinds of istio and gateway  all: their status is compared with what the mesh would write
//	other built-in kinds        all
//
// Objects are not modified once they were handed out, thus what many have in common is kept once: strings, and whole labels,
// owners, containers and conditions of pods that one template made.
type stripper struct {
	interned map[string]string
	shared   map[string]any // by what it consists of
	key      []byte         // scratch
	names    []string       // scratch
}

// internLimit bounds the table of strings; it starts anew beyond.
const internLimit = 1 << 15

const annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func newStripper() *stripper {
	return &stripper{interned: map[string]string{}, shared: map[string]any{}}
}

// strip reduces an object that nobody else has seen yet.
func (s *stripper) strip(o kube.Object) {
	o.SetManagedFields(nil)
	if annotations := o.GetAnnotations(); annotations[annotationLastApplied] != "" {
		delete(annotations, annotationLastApplied)
		if len(annotations) == 0 {
			o.SetAnnotations(nil)
		}
	}
	switch o := o.(type) {
	case *corev1.Pod:
		s.pod(o)
	case *corev1.Node:
		s.node(o)
	case *discoveryv1.EndpointSlice:
		s.endpointSlice(o)
	case *corev1.Namespace:
		o.Finalizers, o.Spec.Finalizers = nil, nil
		s.meta(&o.ObjectMeta)
	case *corev1.Service:
		o.Finalizers = nil
		s.meta(&o.ObjectMeta)
	}
}

// meta shares strings and drops what is in the metadata of built-in kinds for their controllers only.
func (s *stripper) meta(m *metav1.ObjectMeta) {
	m.Namespace = s.intern(m.Namespace)
	m.Labels = s.texts(m.Labels)
	m.GenerateName = ""
}

func (s *stripper) pod(p *corev1.Pod) {
	s.meta(&p.ObjectMeta)
	p.Annotations = s.texts(onlyMesh(p.Annotations))
	p.Finalizers = nil
	p.OwnerReferences = s.owners(p.OwnerReferences)
	p.Spec = corev1.PodSpec{
		NodeName: s.intern(p.Spec.NodeName), ServiceAccountName: s.intern(p.Spec.ServiceAccountName), HostNetwork: p.Spec.HostNetwork,
		Containers: s.containers(p.Spec.Containers), InitContainers: s.containers(p.Spec.InitContainers),
	}
	status := p.Status
	p.Status = corev1.PodStatus{
		Phase: corev1.PodPhase(s.intern(string(status.Phase))), PodIP: status.PodIP, PodIPs: s.podIPs(status), InitContainerStatuses: failed(status.InitContainerStatuses),
	}
	p.Status.Conditions = s.conditions(status.Conditions)
}

// podIPs shares the string of the first address with podIP.
func (s *stripper) podIPs(status corev1.PodStatus) []corev1.PodIP {
	for i := range status.PodIPs {
		if status.PodIPs[i].IP == status.PodIP {
			status.PodIPs[i].IP = status.PodIP
		}
	}
	return status.PodIPs
}

func (s *stripper) containers(in []corev1.Container) []corev1.Container {
	if len(in) == 0 {
		return nil
	}
	s.key = append(s.key[:0], 'c')
	for _, c := range in {
		policy := ""
		if c.RestartPolicy != nil {
			policy = string(*c.RestartPolicy)
		}
		s.sign(c.Name, policy)
		for _, p := range c.Ports {
			s.key = strconv.AppendInt(s.key, int64(p.ContainerPort), 10)
			s.key = append(strconv.AppendInt(append(s.key, ' '), int64(p.HostPort), 10), ' ')
			s.sign(p.Name, string(p.Protocol), p.HostIP)
		}
	}
	return share(s, func() []corev1.Container {
		out := make([]corev1.Container, len(in))
		for i, c := range in {
			out[i] = corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy, Ports: c.Ports}
		}
		return out
	})
}

func (s *stripper) conditions(in []corev1.PodCondition) []corev1.PodCondition {
	if len(in) == 0 {
		return nil
	}
	s.key = append(s.key[:0], 's')
	for _, c := range in {
		s.sign(string(c.Type), string(c.Status))
	}
	return share(s, func() []corev1.PodCondition {
		out := make([]corev1.PodCondition, len(in))
		for i, c := range in {
			out[i] = corev1.PodCondition{Type: c.Type, Status: c.Status}
		}
		return out
	})
}

func (s *stripper) owners(in []metav1.OwnerReference) []metav1.OwnerReference {
	if len(in) == 0 {
		return nil
	}
	s.key = append(s.key[:0], 'o')
	for _, o := range in {
		controller := "-"
		if o.Controller != nil {
			controller = strconv.FormatBool(*o.Controller)
		}
		s.sign(o.APIVersion, o.Kind, o.Name, controller)
	}
	return share(s, func() []metav1.OwnerReference {
		out := make([]metav1.OwnerReference, len(in))
		for i, o := range in {
			out[i] = metav1.OwnerReference{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, Controller: o.Controller}
		}
		return out
	})
}

// texts shares labels or annotations.
func (s *stripper) texts(in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	s.names = s.names[:0]
	for name := range in {
		s.names = append(s.names, name)
	}
	slices.Sort(s.names)
	s.key = append(s.key[:0], 't')
	for _, name := range s.names {
		s.sign(name, in[name])
	}
	return share(s, func() map[string]string {
		out := make(map[string]string, len(in))
		for name, value := range in {
			out[s.intern(name)] = s.intern(value)
		}
		return out
	})
}

// sign appends texts to the key, each behind its length, so that no two lists of texts have the same key.
func (s *stripper) sign(texts ...string) {
	for _, text := range texts {
		s.key = strconv.AppendInt(s.key, int64(len(text)), 10)
		s.key = append(append(s.key, ':'), text...)
	}
	s.key = append(s.key, ';')
}

// share returns the value with the stripper's key, made when there is none yet.
func share[T any](s *stripper, build func() T) T {
	if found, ok := s.shared[string(s.key)]; ok {
		return found.(T)
	}
	if len(s.shared) >= internLimit {
		s.shared = map[string]any{}
	}
	key := string(s.key)
	out := build()
	s.shared[key] = out
	return out
}

// failed leaves those that ended with an error, for the repair of pods that started without redirection.
func failed(in []corev1.ContainerStatus) (out []corev1.ContainerStatus) {
	for _, c := range in {
		now, last := c.State.Terminated, c.LastTerminationState.Terminated
		if (now == nil || now.ExitCode == 0) && (last == nil || last.ExitCode == 0) {
			continue
		}
		kept := corev1.ContainerStatus{Name: c.Name}
		for _, t := range []struct {
			from, to **corev1.ContainerStateTerminated
		}{
			{&now, &kept.State.Terminated}, {&last, &kept.LastTerminationState.Terminated},
		} {
			if *t.from != nil {
				*t.to = &corev1.ContainerStateTerminated{ExitCode: (*t.from).ExitCode, Reason: (*t.from).Reason, Message: (*t.from).Message}
			}
		}
		out = append(out, kept)
	}
	return out
}

func (s *stripper) node(n *corev1.Node) {
	s.meta(&n.ObjectMeta)
	n.Annotations = s.texts(onlyMesh(n.Annotations))
	n.Finalizers, n.OwnerReferences = nil, nil
	n.Spec = corev1.NodeSpec{Taints: n.Spec.Taints}
	status := n.Status
	n.Status = corev1.NodeStatus{Addresses: status.Addresses}
	for _, c := range status.Conditions {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status})
	}
}

func (s *stripper) endpointSlice(e *discoveryv1.EndpointSlice) {
	s.meta(&e.ObjectMeta)
	e.Annotations, e.Finalizers = nil, nil
	if e.Labels[discoveryv1.LabelManagedBy] == sliceController {
		e.Endpoints = slices.DeleteFunc(e.Endpoints, func(e discoveryv1.Endpoint) bool { return e.TargetRef != nil && e.TargetRef.Kind == "Pod" })
	}
	if len(e.Endpoints) == 0 {
		e.Endpoints = nil // not an empty one that holds on to what it had
	}
	e.OwnerReferences = s.owners(e.OwnerReferences)
	for i := range e.Ports {
		p := &e.Ports[i]
		for _, text := range []*string{p.Name, (*string)(p.Protocol), p.AppProtocol} {
			if text != nil {
				*text = s.intern(*text)
			}
		}
	}
	for i := range e.Endpoints {
		endpoint := &e.Endpoints[i]
		endpoint.Hints, endpoint.DeprecatedTopology, endpoint.Zone = nil, nil, nil
		if endpoint.NodeName != nil {
			*endpoint.NodeName = s.intern(*endpoint.NodeName)
		}
		if ref := endpoint.TargetRef; ref != nil {
			kept := corev1.ObjectReference{Kind: s.intern(ref.Kind), Namespace: s.intern(ref.Namespace), Name: ref.Name}
			if ref.Kind == "Pod" {
				kept.UID = ref.UID // tells the pod from one that had its name before
			}
			*ref = kept
		}
	}
}

// onlyMesh leaves the annotations of istio.io and its subdomains.
func onlyMesh(in map[string]string) map[string]string {
	for key := range in {
		domain, _, _ := strings.Cut(key, "/")
		if domain != "istio.io" && !strings.HasSuffix(domain, ".istio.io") {
			delete(in, key)
		}
	}
	if len(in) == 0 {
		return nil
	}
	return in
}

// intern returns a string that is equal to in, the same for all that are.
func (s *stripper) intern(in string) string {
	if in == "" {
		return ""
	}
	if out, ok := s.interned[in]; ok {
		return out
	}
	if len(s.interned) >= internLimit {
		s.interned = map[string]string{}
	}
	s.interned[in] = in
	return in
}
