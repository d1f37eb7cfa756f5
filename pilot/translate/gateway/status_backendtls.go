package gateway

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// maxAncestors is what the API allows a policy's status.
const maxAncestors = 16

// BackendTLSState is what of the mesh the conditions of a BackendTLSPolicy depend on.
type BackendTLSState struct {
	// Others are the policies that name one of the same targets. The policy itself may be among them.
	Others []*gatewayv1.BackendTLSPolicy
	// Routes are those that send something to one of the targets.
	Routes Routes
	// Waypoint is the key of the Gateway that a service goes through; empty for none.
	Waypoint func(*Service) string
}

// BackendTLSPolicyStatus is the status of a BackendTLSPolicy: one entry for each Gateway of ours, waypoints too, that begins TLS by it,
// and for the targets themselves while there is none. It is nil while it is not known whether what the policy names is there.
func BackendTLSPolicyStatus(v View, mesh Mesh, p *gatewayv1.BackendTLSPolicy, state BackendTLSState) *gatewayv1.PolicyStatus {
	found := judgeBackendTLS(v, p)
	if found.pending {
		return nil
	}
	targets, wrong := judgeTargets(v, mesh, p, state.Others)
	accepted, reason := wrong.messages, wrong.reason
	if len(found.invalid) > 0 {
		accepted, reason = append(accepted, found.invalid...), orReason(reason, gatewayv1.PolicyReasonInvalid)
	} else if !found.trusted {
		accepted, reason = append(accepted, "nobody is known who signs the certificates of the backends: connections to them are refused"), orReason(reason, gatewayv1.BackendTLSPolicyReasonNoValidCACertificate)
	}
	takes := condition(string(gatewayv1.PolicyConditionAccepted), p.Generation, accepted, string(gatewayv1.PolicyReasonAccepted), string(reason))
	ancestors := ancestorsOf(v, mesh, targets, state)
	if len(accepted) == 0 {
		takes.Message = "TLS is begun to the targets"
		if len(ancestors) == 0 {
			takes.Message = "no Gateway has a route to a target, and no target has a waypoint: nobody begins TLS to them"
		}
		if len(found.unused) > 0 {
			takes.Message += "; spec.options: " + strings.Join(found.unused, ", ") + " have no effect"
		}
	}
	conditions := []metav1.Condition{
		takes,
		condition(string(gatewayv1.BackendTLSPolicyConditionResolvedRefs), p.Generation, found.unresolved,
			string(gatewayv1.BackendTLSPolicyReasonResolvedRefs), string(found.reason)),
	}
	if len(ancestors) == 0 {
		for _, ref := range p.Spec.TargetRefs {
			ancestors = appendAncestor(ancestors, ancestor(string(ref.Group), string(ref.Kind), p.Namespace, string(ref.Name)))
		}
	}
	out := &gatewayv1.PolicyStatus{Ancestors: []gatewayv1.PolicyAncestorStatus{}}
	for _, ref := range ancestors[:min(len(ancestors), maxAncestors)] {
		out.Ancestors = append(out.Ancestors, gatewayv1.PolicyAncestorStatus{AncestorRef: ref, ControllerName: GatewayController, Conditions: conditions})
	}
	return out
}

func orReason(have, or gatewayv1.PolicyConditionReason) gatewayv1.PolicyConditionReason {
	if have != "" {
		return have
	}
	return or
}

// targetProblems are what is wrong with the targets of a policy; reason is the weightiest one's.
type targetProblems struct {
	messages []string
	reason   gatewayv1.PolicyConditionReason
}

func (t *targetProblems) add(reason gatewayv1.PolicyConditionReason, message string) {
	t.messages = append(t.messages, message)
	weight := []gatewayv1.PolicyConditionReason{"", gatewayv1.PolicyReasonTargetNotFound, gatewayv1.PolicyReasonInvalid, gatewayv1.PolicyReasonConflicted}
	if slices.Index(weight, reason) > slices.Index(weight, t.reason) {
		t.reason = reason
	}
}

// judgeTargets finds the services that a policy is about, also where another policy counts.
func judgeTargets(v View, mesh Mesh, p *gatewayv1.BackendTLSPolicy, others []*gatewayv1.BackendTLSPolicy) (services []*Service, wrong targetProblems) {
	for i, ref := range p.Spec.TargetRefs {
		at := field.NewPath("spec", "targetRefs").Index(i).String() + ": "
		if referenceKey(string(ref.Group), string(ref.Kind), p.Namespace, string(ref.Name)) == "" {
			wrong.add(gatewayv1.PolicyReasonInvalid, at+"a target of kind "+string(ref.Group)+"/"+string(ref.Kind)+" is not supported")
			continue
		}
		found := targetServices(v, mesh, p.Namespace, ref)
		section := sectionOf(ref)
		switch {
		case len(found) == 0:
			wrong.add(gatewayv1.PolicyReasonTargetNotFound, at+"there is no "+string(ref.Kind)+" "+p.Namespace+"/"+string(ref.Name))
		case section != "" && !slices.ContainsFunc(found[0].Ports, func(port Port) bool { return port.Name == section }):
			wrong.add(gatewayv1.PolicyReasonTargetNotFound, at+"the "+string(ref.Kind)+" has no port named "+section)
		default:
			services = append(services, found...)
		}
		if first := precedes(p, ref, others); first != nil {
			wrong.add(gatewayv1.PolicyReasonConflicted, at+"the BackendTLSPolicy "+first.Name+" is older, or comes first by its name, and counts")
		}
	}
	return services, wrong
}

// targetServices are the services of a target: one for each host of a ServiceEntry.
func targetServices(v View, mesh Mesh, namespace string, ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) (out []*Service) {
	if ref.Kind == kindService {
		if s := v.Service(mesh.ServiceHost(string(ref.Name), namespace), namespace); s != nil && !s.Entry && s.Namespace == namespace {
			out = append(out, s)
		}
		return out
	}
	entry := v.ServiceEntry(namespace, string(ref.Name))
	if entry == nil {
		return nil
	}
	for _, host := range entry.Spec.GetHosts() {
		if s := v.Service(host, namespace); s != nil && s.Entry && s.Namespace == namespace && s.Name == entry.Name {
			out = append(out, s)
		}
	}
	return out
}

// precedes finds the policy that counts in the place of p for one of its targets; nil when p does.
func precedes(p *gatewayv1.BackendTLSPolicy, ref gatewayv1.LocalPolicyTargetReferenceWithSectionName, others []*gatewayv1.BackendTLSPolicy) *gatewayv1.BackendTLSPolicy {
	for _, other := range oldestPolicies(others) {
		if other.Namespace != p.Namespace || !slices.ContainsFunc(other.Spec.TargetRefs, func(o gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
			return o.Group == ref.Group && o.Kind == ref.Kind && o.Name == ref.Name && sectionOf(o) == sectionOf(ref)
		}) {
			continue
		}
		if older(&other.ObjectMeta, &p.ObjectMeta) < 0 {
			return other
		}
		return nil
	}
	return nil
}

// ancestorsOf are the Gateways through which something reaches the targets: those whose routes lead there, and waypoints.
func ancestorsOf(v View, mesh Mesh, targets []*Service, state BackendTLSState) (out []gatewayv1.ParentReference) {
	add := func(key string) {
		if namespace, name, ok := strings.Cut(key, "/"); ok {
			out = appendAncestor(out, ancestor(groupGateway, kindGateway, namespace, name))
		}
	}
	for _, s := range targets {
		add(state.Waypoint(s))
	}
	objects := append(routeObjects(state.Routes.HTTP, state.Routes.GRPC), connectionObjects(state.Routes.TLS, state.Routes.TCP)...)
	for _, o := range objects {
		for _, ref := range o.parents {
			kind, hosts := parentHosts(v, mesh, ref, o.meta.Namespace)
			if kind == parentGateway || kind == parentListenerSet {
				add(attachedGateway(v, o, ref))
			}
			for _, host := range hosts {
				if s := v.Service(host, o.meta.Namespace); s != nil {
					add(state.Waypoint(s))
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b gatewayv1.ParentReference) int {
		return strings.Compare(string(*a.Namespace)+"/"+string(a.Name), string(*b.Namespace)+"/"+string(b.Name))
	})
	return out
}

// attachedGateway is the key of a Gateway of ours that takes the route, be it by a ListenerSet; empty for none.
func attachedGateway(v View, o routeObject, ref gatewayv1.ParentReference) string {
	gw, of, problem := parentAt(v, ref, o.meta.Namespace)
	if gw == nil || problem != "" || len(attach(v, of, o, ref).listeners) == 0 {
		return ""
	}
	return gw.Namespace + "/" + gw.Name
}

func ancestor(group, kind, namespace, name string) gatewayv1.ParentReference {
	g, k, ns := gatewayv1.Group(group), gatewayv1.Kind(kind), gatewayv1.Namespace(namespace)
	return gatewayv1.ParentReference{Group: &g, Kind: &k, Namespace: &ns, Name: gatewayv1.ObjectName(name)}
}

func appendAncestor(all []gatewayv1.ParentReference, ref gatewayv1.ParentReference) []gatewayv1.ParentReference {
	if slices.ContainsFunc(all, func(have gatewayv1.ParentReference) bool { return sameParent(have, ref) }) {
		return all
	}
	return append(all, ref)
}
