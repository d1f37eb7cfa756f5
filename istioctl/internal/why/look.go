package why

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
)

// lookAtBinding makes a waypoint that is asked for and not used a fault.
func (w *walk) lookAtBinding(p *path) {
	b, ok := w.binding()
	if !ok || b.Reason == ambient.ReasonWaypointAccepted || p.verdict.Outcome == Broken && b.Ref != nil {
		return
	}
	ns, name, _ := strings.Cut(b.Waypoint, "/")
	gateway := w.m.World.Ref("Gateway", ns, name, "")
	var v Verdict
	switch b.Reason {
	case ambient.ReasonWaypointMissing:
		v = broken("deploy it: istioctl waypoint apply --namespace "+ns+" --name "+name+", or take the label away", "waypoint %s, which the label asks for, is not there", b.Waypoint)
		gateway = nil
	case ambient.ReasonAttachmentDenied:
		v = broken("let the Gateway's HBONE listener have allowedRoutes.namespaces.from: All (or a Selector that matches)",
			"waypoint %s is in another namespace, and its listener does not allow objects of %s (allowedRoutes)", b.Waypoint, w.destinationNamespace())
		gateway = w.m.World.Ref("Gateway", ns, name, "spec.listeners[0]")
	case ambient.ReasonCrossNamespace:
		v = broken("use a waypoint of namespace "+w.destinationNamespace()+", or have a policy of meshConfig.serviceEntryVisibility make its entries PUBLIC",
			"waypoint %s is of another namespace, and only its own may know the ServiceEntry (meshConfig.serviceEntryVisibility)", b.Waypoint)
	case ambient.ReasonUnsupportedTraffic:
		traffic := "services"
		if w.to.service == nil {
			traffic = "workloads by their own address"
		}
		v = broken("set the label istio.io/waypoint-for of the Gateway to all", "waypoint %s is not for traffic to %s (label istio.io/waypoint-for)", b.Waypoint, traffic)
		gateway = w.m.World.Ref("Gateway", ns, name, labelField("istio.io/waypoint-for"))
	case ambient.ReasonWaypointIsNotReady:
		v = broken("look at the Gateway's status and pods: istioctl waypoint status --namespace "+ns, "waypoint %s is not ready: its Gateway has no address yet (not programmed)", b.Waypoint)
		if faults := w.m.faults("Gateway", ns, name); len(faults) > 0 {
			v.Cause += ": " + describe(faults)
		}
	default:
		return
	}
	if w.l7 {
		return // a gateway's own way there
	}
	v = v.about(w.bindingRef(), gateway)
	if p.verdict.Outcome != Allowed {
		w.warnings = append(w.warnings, Finding{Text: v.Cause, Ref: v.Refs[0], Remedy: v.Remedy})
		return
	}
	v.Cause += "; connections pass without it, and neither its routes nor its policies have an effect"
	v.Reached = p.verdict.Reached
	p.verdict = v
}

func (w *walk) destinationNamespace() string {
	if w.to.service != nil {
		return w.to.service.Namespace
	}
	if w.to.workload != nil {
		return w.to.workload.Namespace
	}
	return ""
}

// lookAtRoutes finds routes that are about the destination and have no effect.
func (w *walk) lookAtRoutes(p *path) {
	if w.to == nil || w.to.service == nil {
		return
	}
	s := w.m.service(w.to.service)
	for _, vs := range w.m.virtualServices() {
		w.lookAtVirtualService(vs, s)
	}
	for _, r := range w.m.routes() {
		if r.parentIs(s) {
			w.lookAtRoute(p, r, s)
		}
	}
}

func (w *walk) lookAtRoute(p *path, r apiRoute, s *ambient.Service) {
	ref := w.m.World.Of(r, "")
	atParent := r.parentField(func(p gatewayv1.ParentReference) bool { return string(p.Name) == s.Proto.Name && isService(p) })
	if !w.l7 && !slices.ContainsFunc(p.verdict.Refs, func(have *Ref) bool { return have.Kind == r.kind }) && p.verdict.Outcome != Broken {
		w.warn(ref, "give the service a waypoint: istioctl waypoint apply, and the label istio.io/use-waypoint", "%s has no effect: the connection passes no waypoint", r)
	}
	if f := w.m.faults(r.kind, r.GetNamespace(), r.GetName()); len(f) > 0 {
		if slices.ContainsFunc(f, func(c condition) bool { return c.Type == string(gatewayv1.RouteConditionAccepted) }) {
			ref = w.m.World.Of(r, atParent)
		} else if field := faultField(f); field != "" {
			ref = w.m.World.Of(r, field)
		}
		w.warn(ref, "", "%s: %s", r, describe(f))
	}
}

func (w *walk) warn(ref *Ref, remedy, format string, args ...any) {
	f := Finding{Text: fmt.Sprintf(format, args...), Ref: ref, Remedy: remedy}
	if !slices.ContainsFunc(w.warnings, func(have Finding) bool { return have.Text == f.Text }) {
		w.warnings = append(w.warnings, f)
	}
}

// lookAtVirtualService tells of one for the destination that has faults, and of one whose host is nearly it.
func (w *walk) lookAtVirtualService(vs *networkingv1.VirtualService, s *ambient.Service) {
	mesh := w.m.Mesh.Settings()
	for i, host := range vs.Spec.GetHosts() {
		full := host
		if !strings.Contains(host, ".") && host != "*" {
			full = mesh.Hostname(vs.Namespace, host)
		}
		ref := w.m.World.Of(vs, fmt.Sprintf("spec.hosts[%d]", i))
		switch {
		case full == s.Proto.Hostname:
			if f := w.m.faults("VirtualService", vs.Namespace, vs.Name); len(f) > 0 {
				if field := faultField(f); field != "" {
					ref = w.m.World.Of(vs, field)
				}
				w.warn(ref, "", "VirtualService %s/%s: %s", vs.Namespace, vs.Name, describe(f))
			}
			if !w.l7 && w.from.workload != nil && s.Binding.Waypoint == "" {
				w.warn(ref, "give the service a waypoint: istioctl waypoint apply, and the label istio.io/use-waypoint", "VirtualService %s/%s has no effect: the connection passes no waypoint", vs.Namespace, vs.Name)
			}
		case len(w.m.State.ServicesByHostname(full)) == 0 && editDistance(full, s.Proto.Hostname) <= 2:
			w.warn(ref, "correct the host to "+s.Proto.Name, "VirtualService %s/%s has no effect: its host %q is no service; %q may be meant", vs.Namespace, vs.Name, host, s.Proto.Name)
		}
	}
}

// lookAtPolicies finds those that are about the destination and are not enforced as they are written.
func (w *walk) lookAtPolicies() {
	if w.to == nil {
		return
	}
	s := w.m.service(w.to.service)
	ns := w.destinationNamespace()
	root := w.m.Mesh.Settings().RootNamespace
	for _, ap := range all[*securityv1.AuthorizationPolicy](w.m, "AuthorizationPolicy") {
		if ap.Namespace != ns && ap.Namespace != root {
			continue
		}
		t := w.m.policies[ap.Namespace+"/"+ap.Name]
		switch {
		case t != nil && t.Proto != nil && !t.Status.Accepted && w.concerns(ap, s):
			field := "spec.rules"
			if unsent := w.m.Mesh.UnsentRules(ap); len(unsent) > 0 {
				field = fmt.Sprintf("spec.rules[%d]", unsent[0])
			}
			w.warn(w.m.World.Of(ap, field), "attach it to the service or waypoint by targetRefs: only a waypoint enforces HTTP attributes",
				"AuthorizationPolicy %s/%s (%s): %s", ap.Namespace, ap.Name, ap.Spec.GetAction(), t.Status.Message)
		case t != nil && t.Proto == nil && targeted(ap) && !w.l7 && s != nil && attached(ap, s):
			w.warn(w.m.World.Of(ap, "spec.targetRefs"), "give the service a waypoint: istioctl waypoint apply, and the label istio.io/use-waypoint",
				"AuthorizationPolicy %s/%s is not enforced: it is for a waypoint, and the connection passes none", ap.Namespace, ap.Name)
		case t != nil && t.Proto == nil && !targeted(ap) && w.concerns(ap, s):
			field, text := "spec.action", t.Status.Message
			if ap.Annotations["istio.io/dry-run"] == "true" {
				field, text = "metadata.annotations[istio.io/dry-run]", "it is a dry run; "+text
			}
			w.warn(w.m.World.Of(ap, field), "", "AuthorizationPolicy %s/%s is not enforced: %s", ap.Namespace, ap.Name, text)
		}
	}
}

func targeted(ap *securityv1.AuthorizationPolicy) bool {
	return len(ap.Spec.GetTargetRefs()) > 0 || ap.Spec.GetTargetRef() != nil
}

// attached is whether a policy names the service.
func attached(ap *securityv1.AuthorizationPolicy, s *ambient.Service) bool {
	kind := policy.KindService
	if s.Entry != "" {
		kind = policy.KindServiceEntry
	}
	t := policy.Target{Proxy: policy.Waypoint, Services: []policy.ServiceRef{{Kind: kind, Namespace: s.Proto.Namespace, Name: s.Proto.Name}}}
	return len(policy.Attached(t, []*securityv1.AuthorizationPolicy{ap})) > 0
}

// concerns is whether a policy for workloads is about one of those behind the destination.
func (w *walk) concerns(ap *securityv1.AuthorizationPolicy, s *ambient.Service) bool {
	selector := ap.Spec.GetSelector().GetMatchLabels()
	if len(selector) == 0 {
		return true
	}
	selects := func(uid string) bool {
		t := w.m.workloads[uid]
		return t != nil && matchesSelectorSet(selector, t.Labels)
	}
	if w.to.workload != nil {
		return selects(w.to.workload.UID)
	}
	if w.to.service == nil || s == nil {
		return false
	}
	for e := range w.m.State.Endpoints(w.to.service.ServiceKey).All() {
		if selects(e.UID) {
			return true
		}
	}
	return false
}
