package gateway

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// unresolvedRef is a reference that cannot be followed, with the reason that the condition ResolvedRefs gives.
type unresolvedRef struct {
	reason  gatewayv1.RouteConditionReason
	message string
}

func (t *translation) unresolve(path *field.Path, reason gatewayv1.RouteConditionReason, message string) {
	ref := unresolvedRef{reason, path.String() + ": " + message}
	if !slices.Contains(t.unresolved, ref) {
		t.unresolved = append(t.unresolved, ref)
	}
}

// backend finds the service that a reference names; ok is false, and the reason noted, when requests cannot go there.
func (t *translation) backend(o routeObject, path *field.Path, ref gatewayv1.BackendObjectReference) (to destinationTarget, ok bool) {
	group, kind, namespace := "", "Service", o.meta.Namespace
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil && *ref.Namespace != "" {
		namespace = string(*ref.Namespace)
	}
	switch {
	case group == "" && kind == "Service":
		to.host = t.mesh.ServiceHost(string(ref.Name), namespace)
	case group == groupNetworking && kind == "ServiceEntry":
		entry := t.view.ServiceEntry(namespace, string(ref.Name))
		if entry == nil || len(entry.Spec.Hosts) == 0 {
			t.unresolve(path, gatewayv1.RouteReasonBackendNotFound, "there is no ServiceEntry "+namespace+"/"+string(ref.Name))
			return to, false
		}
		to.host = entry.Spec.Hosts[0]
	case group == groupNetworking && kind == "Hostname":
		to.host = string(ref.Name)
	default:
		t.unresolve(path, gatewayv1.RouteReasonInvalidKind, "a backend of kind "+group+"/"+kind+" is not supported")
		return to, false
	}
	if namespace != o.meta.Namespace && kind != "Hostname" && !o.consumes(namespace) && !t.granted(o, namespace, group, kind, string(ref.Name)) {
		t.unresolve(path, gatewayv1.RouteReasonRefNotPermitted, "no ReferenceGrant of namespace "+namespace+" allows this")
		return to, false
	}
	if ref.Port == nil {
		t.unresolve(path, gatewayv1.RouteReasonUnsupportedValue, "a port is needed")
		return to, false
	}
	to.port = uint32(*ref.Port)
	svc := t.view.Service(to.host, o.meta.Namespace)
	if svc == nil {
		t.unresolve(path, gatewayv1.RouteReasonBackendNotFound, "there is no service "+to.host)
		return to, false
	}
	if !slices.ContainsFunc(svc.Ports, func(p Port) bool { return p.Number == to.port }) {
		t.unresolve(path, gatewayv1.RouteReasonBackendNotFound, to.host+" has no such port")
		return to, false
	}
	to.cluster = t.cluster(to.host, to.port, "")
	return to, true
}

// consumes reports whether the route is a client's own, for a service of the namespace: its clients could call the services there
// by themselves, so that nobody needs to allow it.
func (o routeObject) consumes(namespace string) bool {
	found := false
	for _, p := range o.parents {
		if p.Kind == nil || *p.Kind != "Service" || p.Group == nil || *p.Group != "" {
			return false
		}
		found = found || p.Namespace != nil && string(*p.Namespace) == namespace
	}
	return found
}

// granted reports whether a ReferenceGrant of the namespace allows the route to name an object there.
func (t *translation) granted(o routeObject, namespace, group, kind, name string) bool {
	return granted(t.view, namespace, groupGateway, o.kind, o.meta.Namespace, group, kind, name)
}

// granted reports whether an object of fromKind in fromNamespace may name the object in namespace.
func granted(v View, namespace, fromGroup, fromKind, fromNamespace, group, kind, name string) bool {
	for _, grant := range v.ReferenceGrants(namespace) {
		from := slices.ContainsFunc(grant.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == fromGroup && string(f.Kind) == fromKind && string(f.Namespace) == fromNamespace
		})
		to := slices.ContainsFunc(grant.Spec.To, func(to gatewayv1.ReferenceGrantTo) bool {
			return string(to.Group) == group && string(to.Kind) == kind && (to.Name == nil || *to.Name == "" || string(*to.Name) == name)
		})
		if from && to {
			return true
		}
	}
	return false
}
