package analyzers

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

const (
	strict  = securityapi.PeerAuthentication_MutualTLS_STRICT
	disable = securityapi.PeerAuthentication_MutualTLS_DISABLE
)

func peerAuthentications(s *analysis.Snapshot) (out analysis.Messages) {
	outside := plaintextNamespaces(s)
	for r, pa := range analysis.All[*securityv1.PeerAuthentication](s) {
		selector := pa.Spec.GetSelector().GetMatchLabels()
		where := scope(s, pa.Namespace)
		if where == "" && len(selector) > 0 {
			out.Add(analysis.IneffectivePolicy, r, "spec.selector", "a selector has no effect in the root namespace: put the object into the namespace of the workloads")
			continue
		}
		selected := s.Select(where, selector)
		inAmbient := slices.ContainsFunc(selected, s.InAmbient) || !s.Live && len(selected) == 0 && s.AmbientNamespace(pa.Namespace)
		field, mode := modeOf(&pa.Spec, strict)
		switch {
		case inAmbient && mode && len(outside) > 0:
			out.Add(analysis.StrictWithPlaintextPeers, r, field, strings.Join(outside, ", "))
		case s.Live && s.Known("Pod") && where != "" && len(selected) > 0 && !inAmbient && !slices.ContainsFunc(selected, (*analysis.Workload).Sidecar):
			out.Add(analysis.IneffectivePolicy, r, "metadata.name", fmt.Sprintf("none of the workloads it is for is part of the mesh; label namespace %s istio.io/dataplane-mode=ambient", pa.Namespace))
		}
		if field, mode := modeOf(&pa.Spec, disable); mode && inAmbient {
			out.Add(analysis.DisableIsPermissive, r, field)
		}
	}
	return out
}

// modeOf tells whether a mode is set, and where.
func modeOf(pa *securityapi.PeerAuthentication, mode securityapi.PeerAuthentication_MutualTLS_Mode) (field string, set bool) {
	if pa.GetMtls().GetMode() == mode {
		return "spec.mtls.mode", true
	}
	for port, m := range pa.GetPortLevelMtls() {
		if m.GetMode() == mode {
			return fmt.Sprintf("spec.portLevelMtls.%d.mode", port), true
		}
	}
	return "", false
}

// plaintextNamespaces are those whose pods have no identity, as far as they may call anybody: at most five.
func plaintextNamespaces(s *analysis.Snapshot) []string {
	var out []string
	if !s.Known("Pod") {
		return nil
	}
	const most = 5
	more := 0
	for r, ns := range analysis.All[*corev1.Namespace](s) {
		if s.SystemNamespace(ns.Name) || r.Assumed || !slices.ContainsFunc(s.Workloads(ns.Name), func(w *analysis.Workload) bool {
			return w.Spec != nil && !w.Spec.HostNetwork && !s.InAmbient(w) && !w.Sidecar() && !w.Gateway()
		}) {
			continue
		}
		if len(out) == most {
			more++
			continue
		}
		out = append(out, ns.Name)
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return out
}

func enrolment(s *analysis.Snapshot) (out analysis.Messages) {
	for r, p := range analysis.All[*corev1.Pod](s) {
		if !r.Live() || p.Spec.HostNetwork || p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil {
			continue
		}
		mode := p.Labels[analysis.LabelDataplaneMode]
		if mode != "ambient" && (mode != "" || !s.AmbientNamespace(p.Namespace)) {
			continue
		}
		w := &analysis.Workload{Namespace: p.Namespace, Labels: p.Labels, Spec: &p.Spec}
		switch value := p.Annotations[annotationRedirection]; {
		case w.Sidecar():
			out.Add(analysis.SidecarAndAmbient, r, "metadata.name", r.FullName())
		case value == "pending":
			out.Add(analysis.PodNotEnrolled, r, "metadata.name", r.FullName(), "the CNI agent has not finished; see the log of istio-cni-node on node "+p.Spec.NodeName)
		case value != "enabled":
			out.Add(analysis.PodNotEnrolled, r, "metadata.name", r.FullName(), "the log of istio-cni-node on node "+p.Spec.NodeName+" says why; without one there, install the CNI component")
		}
	}
	return out
}
