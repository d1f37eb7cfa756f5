package policy

import (
	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Kinds that a policy can name in targetRefs.
const (
	KindService      = "Service"
	KindServiceEntry = "ServiceEntry"
	KindGateway      = "Gateway"
	KindGatewayClass = "GatewayClass"
)

// waypointClass is the only class that a policy can be attached to.
const waypointClass = "istio-waypoint"

// ServiceRef is a service that a filter chain of a waypoint serves.
type ServiceRef struct {
	// Kind is KindService or KindServiceEntry.
	Kind            string
	Namespace, Name string
}

// Target is a filter chain for which attached objects are selected.
type Target struct {
	Proxy Proxy
	// RootNamespace holds objects that apply to every namespace.
	RootNamespace string
	// Namespace of the proxy, and the name of the Gateway that it was deployed for; empty for a classic gateway.
	Namespace, Gateway string
	// Labels of the proxy's pods, which selectors are matched against. Waypoints ignore selectors.
	Labels map[string]string
	// Services that the chain serves; waypoints only.
	Services []ServiceRef
}

// Attached selects the AuthorizationPolicies that a filter chain has to enforce.
func Attached(t Target, all []*securityv1.AuthorizationPolicy) []*securityv1.AuthorizationPolicy {
	var out []*securityv1.AuthorizationPolicy
	for _, p := range all {
		if t.attaches(&p.ObjectMeta, &p.Spec) {
			out = append(out, p)
		}
	}
	return out
}

// AttachedRequestAuthentications selects the RequestAuthentications that a filter chain has to enforce.
func AttachedRequestAuthentications(t Target, all []*securityv1.RequestAuthentication) []*securityv1.RequestAuthentication {
	var out []*securityv1.RequestAuthentication
	for _, p := range all {
		if t.attaches(&p.ObjectMeta, &p.Spec) {
			out = append(out, p)
		}
	}
	return out
}

// spec is what all objects that attach have.
type spec interface {
	GetSelector() *typeapi.WorkloadSelector
	GetTargetRef() *typeapi.PolicyTargetReference
	GetTargetRefs() []*typeapi.PolicyTargetReference
}

var (
	_ spec = (*securityapi.AuthorizationPolicy)(nil)
	_ spec = (*securityapi.RequestAuthentication)(nil)
)

// targets of an object; the older singular field counts when the list is empty.
func targets(s spec) []*typeapi.PolicyTargetReference {
	if refs := s.GetTargetRefs(); len(refs) > 0 {
		return refs
	}
	if ref := s.GetTargetRef(); ref != nil {
		return []*typeapi.PolicyTargetReference{ref}
	}
	return nil
}

func (t Target) attaches(meta *metav1.ObjectMeta, s spec) bool {
	refs := targets(s)
	if len(refs) == 0 {
		return t.selectedBy(meta, s)
	}
	for _, ref := range refs {
		if t.namedBy(meta, ref) {
			return true
		}
	}
	return false
}

// selectedBy is about objects without targetRefs, which waypoints never obey. An object without a selector selects all.
func (t Target) selectedBy(meta *metav1.ObjectMeta, s spec) bool {
	if t.Proxy == Waypoint || meta.Namespace != t.Namespace && meta.Namespace != t.RootNamespace {
		return false
	}
	for k, v := range s.GetSelector().GetMatchLabels() {
		if have, ok := t.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// namedBy is about one reference. Those to other namespaces are not followed.
func (t Target) namedBy(meta *metav1.ObjectMeta, ref *typeapi.PolicyTargetReference) bool {
	if ns := ref.GetNamespace(); ns != "" && ns != meta.Namespace {
		return false
	}
	switch kind := refKind(ref); kind {
	case KindGateway:
		return t.Gateway != "" && ref.GetName() == t.Gateway && meta.Namespace == t.Namespace
	case KindGatewayClass:
		return t.Proxy == Waypoint && ref.GetName() == waypointClass && meta.Namespace == t.RootNamespace
	case KindService, KindServiceEntry:
		for _, s := range t.Services {
			if t.Proxy == Waypoint && s == (ServiceRef{kind, meta.Namespace, ref.GetName()}) {
				return true
			}
		}
	}
	return false
}

// refKind is empty for a kind that nothing attaches to.
func refKind(ref *typeapi.PolicyTargetReference) string {
	switch group, kind := ref.GetGroup(), ref.GetKind(); {
	case kind == KindService && (group == "" || group == "core"):
		return kind
	case kind == KindServiceEntry && group == "networking.istio.io":
		return kind
	case (kind == KindGateway || kind == KindGatewayClass) && group == "gateway.networking.k8s.io":
		return kind
	}
	return ""
}
