package collect

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// stripper takes from objects what no analyzer looks at, and keeps texts that many have in common once.
type stripper struct{ texts map[string]string }

func newStripper() *stripper { return &stripper{texts: map[string]string{}} }

func (s *stripper) strip(o kube.Object) {
	o.SetManagedFields(nil)
	o.SetFinalizers(nil)
	annotations := maps.Clone(o.GetAnnotations())
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
	o.SetAnnotations(s.shared(annotations))
	o.SetLabels(s.shared(o.GetLabels()))
	switch o := o.(type) {
	case *corev1.Pod:
		s.pod(o)
	case *corev1.Node:
		o.Status, o.Spec = corev1.NodeStatus{}, corev1.NodeSpec{}
	case *corev1.ServiceAccount:
		o.Secrets, o.ImagePullSecrets = nil, nil
	}
}

func (s *stripper) pod(p *corev1.Pod) {
	p.GenerateName = ""
	spec, status := p.Spec, p.Status
	p.Spec = corev1.PodSpec{NodeName: s.text(spec.NodeName), ServiceAccountName: s.text(spec.ServiceAccountName), HostNetwork: spec.HostNetwork, SecurityContext: spec.SecurityContext}
	p.Spec.Containers, p.Spec.InitContainers = s.containers(spec.Containers), s.containers(spec.InitContainers)
	p.Status = corev1.PodStatus{Phase: corev1.PodPhase(s.text(string(status.Phase)))}
	for _, c := range status.Conditions {
		if c.Type == corev1.PodReady {
			p.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
}

func (s *stripper) containers(in []corev1.Container) []corev1.Container {
	out := make([]corev1.Container, 0, len(in))
	for _, c := range in {
		out = append(out, corev1.Container{Name: s.text(c.Name), Image: s.text(c.Image), SecurityContext: c.SecurityContext})
	}
	return out
}

func (s *stripper) shared(in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for name, value := range in {
		out[s.text(name)] = s.text(value)
	}
	return out
}

func (s *stripper) text(in string) string {
	if out, ok := s.texts[in]; ok {
		return out
	}
	s.texts[in] = in
	return in
}
