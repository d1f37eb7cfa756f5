package why

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// A sidecar decides by a configuration of its own: routes, policies and mutual TLS are its business before the ztunnels and waypoints have
// anything to say, or after they have said it. Nothing here computes that. What is known of the way is told, and no verdict is given.

const (
	sidecarStatus    = "sidecar.istio.io/status"
	sidecarTLS       = "security.istio.io/tlsMode"
	sidecarTemplates = "inject.istio.io/templates"
	sidecarRemedy    = "take the sidecar out (the label istio-injection of the namespace, sidecar.istio.io/inject of the pod), then restart the pod; " +
		"or ask its own proxy: istioctl proxy-config all POD"
)

// besidesSidecar is whether a pod has a proxy of its own beside its application. Proxies of gateways have none beside them.
func (m *Model) besidesSidecar(p *corev1.Pod) bool {
	if p == nil || p.Labels[labelGatewayName] != "" || strings.Contains(p.Annotations[sidecarTemplates], "gateway") {
		return false
	}
	if p.Annotations[sidecarStatus] == "" && p.Labels[sidecarTLS] != "istio" {
		return false
	}
	for w := range m.podWorkloads(p) {
		if m.isProxy(w) {
			return false
		}
	}
	return true
}

// isProxy is whether a Gateway of either API is served by a workload.
func (m *Model) isProxy(local *l4.Workload) bool { return (&walk{m: m}).gatewayOf(local) != nil }

// sidecarRef is what says that there is one.
func (m *Model) sidecarRef(p *corev1.Pod) *Ref {
	if p.Annotations[sidecarStatus] != "" {
		return m.World.Of(p, "metadata.annotations["+sidecarStatus+"]")
	}
	return m.World.Of(p, labelField(sidecarTLS))
}

// fromSidecar takes back a verdict about what a pod with a sidecar sends: only what is broken whatever the sidecar does stays so.
func (w *walk) fromSidecar(p *path) {
	if !w.m.besidesSidecar(w.from.pod) || w.q.Identity != "" || p.verdict.Outcome == Broken {
		return
	}
	pod := w.from.pod
	plain := p.verdict
	p.verdict = Verdict{Outcome: Unknown, Refs: []*Ref{w.m.sidecarRef(pod)}, Remedy: sidecarRemedy, Reached: plain.Reached}
	p.verdict.Cause = fmt.Sprintf("pod %s/%s has a sidecar: which routes, policies and mutual TLS it applies to what it sends is in its own configuration, which is not worked out here",
		pod.Namespace, pod.Name)
	text := fmt.Sprintf("were the connection of the sidecar plain TCP, it would be %s: %s", plain.Outcome, plain.Cause)
	var ref *Ref
	if len(plain.Refs) > 0 {
		ref = plain.Refs[0]
	}
	w.warnings = append(w.warnings, Finding{Text: text, Ref: ref})
}

// toSidecar is the end of a way at a pod with a sidecar: nobody has refused it so far.
func (w *walk) toSidecar(h *Hop, local *l4.Workload, v Verdict) (Verdict, bool) {
	pod := w.m.podOf(local)
	t := w.m.workloads[local.UID]
	ref := w.m.workloadRef(local, "")
	switch {
	case pod != nil && w.m.besidesSidecar(pod):
		ref = w.m.sidecarRef(pod)
	case pod == nil && t != nil && t.Sidecar:
	default:
		return v, false
	}
	name := local.Namespace + "/" + local.Name
	h.add("sidecar", "takes the connection before the application does, by a configuration of its own", ref)
	return Verdict{
		Outcome: Unknown, Refs: []*Ref{ref}, Remedy: sidecarRemedy, Reached: v.Reached,
		Cause: fmt.Sprintf("the connection gets as far as %s, which has a sidecar: whether the sidecar takes it (AuthorizationPolicies, PeerAuthentication, routes) is in its own configuration, which is not worked out here", name),
	}, true
}
