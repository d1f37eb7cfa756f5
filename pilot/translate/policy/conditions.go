package policy

import (
	"fmt"
	"slices"
	"strings"

	meshapi "istio.io/api/mesh/v1alpha1"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// ConditionWaypointAccepted says whether the waypoints and gateways that an object names in targetRefs enforce it as written.
const ConditionWaypointAccepted = "WaypointAccepted"

// Reasons of the condition.
const (
	ReasonAccepted         = "Accepted"
	ReasonInvalid          = "Invalid"
	ReasonPartiallyInvalid = "PartiallyInvalid"
	ReasonAncestorNotBound = "AncestorNotBound"
	ReasonTargetNotFound   = "TargetNotFound"
	ReasonUnsupportedValue = "UnsupportedValue"
)

// Condition of an object's status.
type Condition struct {
	Type            string
	True            bool
	Reason, Message string
}

// Finder looks objects up for conditions.
type Finder interface {
	// Find returns whether the object exists, and the proxy that serves it as namespace/name: a service's waypoint, a Gateway itself.
	// The proxy is empty when there is none.
	Find(kind, namespace, name string) (exists bool, proxy string)
}

// AuthorizationPolicyConditions are those of a policy with targetRefs; others are not for waypoints.
// Of in, the mesh and its authorizers matter.
func AuthorizationPolicyConditions(in Input, p *securityv1.AuthorizationPolicy, find Finder) []Condition {
	if len(targets(&p.Spec)) == 0 {
		return nil
	}
	bound := bindings(p.Namespace, in.Mesh.GetRootNamespace(), &p.Spec, find)
	if bound.Reason != ReasonAccepted {
		return []Condition{bound}
	}
	if c, ok := contentCondition(in, p); !ok {
		return []Condition{c}
	}
	return []Condition{bound}
}

// RequestAuthenticationConditions are those of an object with targetRefs. jwks is as in Input.
func RequestAuthenticationConditions(mesh *meshapi.MeshConfig, ra *securityv1.RequestAuthentication, jwks func(string) (string, bool), find Finder) []Condition {
	if len(targets(&ra.Spec)) == 0 {
		return nil
	}
	bound := bindings(ra.Namespace, mesh.GetRootNamespace(), &ra.Spec, find)
	if bound.Reason != ReasonAccepted {
		return []Condition{bound}
	}
	in := Input{Mesh: mesh, JWKS: jwks}
	var locked []string
	for _, rule := range ra.Spec.GetJwtRules() {
		if in.jwks(rule) == lockedJWKS() {
			locked = append(locked, rule.GetIssuer())
		}
	}
	if len(locked) > 0 {
		return []Condition{refused(ReasonPartiallyInvalid, "there are no usable keys of the issuers %s: their tokens are refused", strings.Join(locked, ", "))}
	}
	return []Condition{bound}
}

func refused(reason, format string, args ...any) Condition {
	return Condition{Type: ConditionWaypointAccepted, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// bindings looks at the targets: the worst of them is what is said.
func bindings(namespace, root string, s spec, find Finder) Condition {
	var missing, unbound, bound []string
	for _, ref := range targets(s) {
		kind := refKind(ref)
		name := fmt.Sprintf("%s %s/%s", ref.GetKind(), namespace, ref.GetName())
		switch {
		case kind == "":
			missing = append(missing, name+" is of a kind that policies are not attached to")
		case ref.GetNamespace() != "" && ref.GetNamespace() != namespace:
			missing = append(missing, fmt.Sprintf("%s %s/%s is in another namespace", ref.GetKind(), ref.GetNamespace(), ref.GetName()))
		case kind == KindGatewayClass:
			if namespace != root || ref.GetName() != waypointClass {
				missing = append(missing, fmt.Sprintf("GatewayClass %s: only %s, and only from the root namespace", ref.GetName(), waypointClass))
			} else {
				bound = append(bound, "GatewayClass "+waypointClass)
			}
		default:
			switch exists, proxy := find.Find(kind, namespace, ref.GetName()); {
			case !exists:
				missing = append(missing, name+" was not found")
			case proxy == "":
				unbound = append(unbound, name+" is not bound to a waypoint")
			default:
				bound = append(bound, proxy)
			}
		}
	}
	switch {
	case len(missing) > 0:
		return refused(ReasonTargetNotFound, "%s", strings.Join(append(missing, unbound...), "; "))
	case len(unbound) > 0:
		return refused(ReasonAncestorNotBound, "%s", strings.Join(unbound, "; "))
	}
	slices.Sort(bound)
	return Condition{Type: ConditionWaypointAccepted, True: true, Reason: ReasonAccepted, Message: "bound to " + strings.Join(slices.Compact(bound), ", ")}
}

// contentCondition is about what the rules say; ok is true when all of it can be expressed.
func contentCondition(in Input, p *securityv1.AuthorizationPolicy) (c Condition, ok bool) {
	if p.Spec.GetAction() == securityapi.AuthorizationPolicy_CUSTOM {
		if isDryRun(p) {
			return refused(ReasonUnsupportedValue, "a dry run of the action CUSTOM has no effect: the provider is not asked"), false
		}
		if _, err := in.extAuthz(custom{provider: p.Spec.GetProvider().GetName()}); err != nil {
			return refused(ReasonInvalid, "spec.provider.name: %v: what the rules match is denied", err), false
		}
	}
	var problems []string
	left := 0
	for _, a := range append(actions(), customAction()) {
		if a.api != p.Spec.GetAction() {
			continue
		}
		t := in.translator(p, a, false)
		t.problem = func(attribute, value string, err error) {
			problems = append(problems, fmt.Sprintf("%s: %v", attribute, err))
		}
		for _, rule := range p.Spec.GetRules() {
			if t.rule(rule) != nil {
				left++
			}
		}
	}
	if len(problems) == 0 {
		return Condition{}, true
	}
	effect := "rules are enforced without them, so that they match more"
	if p.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW {
		effect = "rules with them are not enforced, so that less is allowed than was written"
	}
	reason := ReasonPartiallyInvalid
	if left == 0 {
		reason = ReasonInvalid
	}
	return refused(reason, "%s (%s)", strings.Join(problems, "; "), effect), false
}
