package why

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Kinds by which objects are known.
const (
	kindPolicy  = "AuthorizationPolicy"
	kindTokens  = "RequestAuthentication"
	kindClassic = "Gateway.networking.istio.io"
)

// fieldPattern is a field at the beginning of a message, as conditions and translations name it.
var fieldPattern = regexp.MustCompile(`\bspec(?:\.[A-Za-z]+(?:\[[^\]]+\])*)+`)

// faultField is the field that conditions are about; empty when they name none.
func faultField(list []condition) string {
	for _, c := range list {
		if field := fieldPattern.FindString(c.Message); field != "" {
			return field
		}
	}
	return ""
}

// attachable is an object that is attached to what serves the destination.
type attachable struct {
	kind string
	kube.Object
	refs []*typeapi.PolicyTargetReference
}

func (w *walk) attachables() (out []attachable) {
	for _, ap := range all[*securityv1.AuthorizationPolicy](w.m, kindPolicy) {
		refs := ap.Spec.GetTargetRefs()
		if len(refs) == 0 && ap.Spec.GetTargetRef() != nil {
			refs = []*typeapi.PolicyTargetReference{ap.Spec.GetTargetRef()}
		}
		out = append(out, attachable{kindPolicy, ap, refs})
	}
	for _, ra := range all[*securityv1.RequestAuthentication](w.m, kindTokens) {
		refs := ra.Spec.GetTargetRefs()
		if len(refs) == 0 && ra.Spec.GetTargetRef() != nil {
			refs = []*typeapi.PolicyTargetReference{ra.Spec.GetTargetRef()}
		}
		out = append(out, attachable{kindTokens, ra, refs})
	}
	return out
}

// targetField is the place of a reference.
func targetField(a attachable, i int) string {
	if ap, ok := a.Object.(*securityv1.AuthorizationPolicy); ok && len(ap.Spec.GetTargetRefs()) == 0 {
		return "spec.targetRef"
	}
	if ra, ok := a.Object.(*securityv1.RequestAuthentication); ok && len(ra.Spec.GetTargetRefs()) == 0 {
		return "spec.targetRef"
	}
	return fmt.Sprintf("spec.targetRefs[%d]", i)
}

// lookAtAttachments finds objects that are meant for the destination or its waypoint, and are attached to nothing.
func (w *walk) lookAtAttachments() {
	if w.to == nil {
		return
	}
	s := w.m.service(w.to.service)
	ns, root := w.destinationNamespace(), w.m.Mesh.Settings().RootNamespace
	b, _ := w.binding()
	for _, a := range w.attachables() {
		for i, ref := range a.refs {
			at := w.m.World.Of(a, targetField(a, i))
			name := a.kind + " " + a.GetNamespace() + "/" + a.GetName()
			switch ref.GetKind() {
			case policy.KindGatewayClass:
				if a.GetNamespace() != root && (a.GetNamespace() == ns || strings.HasPrefix(b.Waypoint, a.GetNamespace()+"/")) {
					w.warn(at, "put it into namespace "+root+", or attach it to the waypoint's Gateway or the Service",
						"%s is attached to nothing: one that names a GatewayClass counts only in namespace %s", name, root)
				}
			case policy.KindService, policy.KindServiceEntry, policy.KindGateway:
				w.lookAtTarget(name, at, a.GetNamespace(), ref, s, b)
			}
		}
	}
}

// lookAtTarget tells of a reference to what is not there, when its name is nearly that of the destination.
func (w *walk) lookAtTarget(name string, at *Ref, namespace string, ref *typeapi.PolicyTargetReference, s *ambient.Service, b ambient.Binding) {
	if other := ref.GetNamespace(); other != "" && other != namespace {
		if s != nil && other == s.Proto.Namespace && ref.GetName() == s.Proto.Name {
			w.warn(at, "put it into namespace "+other, "%s is not attached: it is in another namespace than what it names", name)
		}
		return
	}
	meant := ""
	switch kind := ref.GetKind(); {
	case w.m.objects[key(kind, namespace, ref.GetName())] != nil:
		return
	case kind == policy.KindGateway:
		ns, waypoint, _ := strings.Cut(b.Waypoint, "/")
		if ns == namespace && editDistance(waypoint, ref.GetName()) <= 2 {
			meant = waypoint
		}
	case s != nil && s.Proto.Namespace == namespace && editDistance(s.Proto.Name, ref.GetName()) <= 2:
		meant = s.Proto.Name
	}
	if meant != "" {
		w.warn(at, "correct the name to "+meant, "%s is attached to nothing: there is no %s %s in namespace %s; did you mean %s?", name, ref.GetKind(), ref.GetName(), namespace, meant)
	}
}

// lookPastWaypoint tells of what a gateway goes past: policies and routes of a waypoint that is not on its way.
func (w *walk) lookPastWaypoint() {
	if w.waypoint {
		return
	}
	for _, s := range w.backends {
		if s.Binding.Waypoint != "" {
			w.lookPast(s, s.Binding)
		}
	}
}

func (w *walk) lookPast(s *ambient.Service, b ambient.Binding) {
	const label = "istio.io/ingress-use-waypoint"
	remedy := fmt.Sprintf("label the service, or its namespace, %s=true", label)
	ns, gateway, _ := strings.Cut(b.Waypoint, "/")
	t := policy.Target{Proxy: policy.Waypoint, RootNamespace: w.m.Mesh.Settings().RootNamespace, Namespace: ns, Gateway: gateway}
	kind := policy.KindService
	if s.Entry != "" {
		kind = policy.KindServiceEntry
	}
	t.Services = []policy.ServiceRef{{Kind: kind, Namespace: s.Proto.Namespace, Name: s.Proto.Name}}
	for _, ap := range policy.Attached(t, all[*securityv1.AuthorizationPolicy](w.m, kindPolicy)) {
		w.warn(w.m.World.Of(ap, "spec.targetRefs"), remedy, "AuthorizationPolicy %s/%s is not enforced: it is for waypoint %s, and gateways go past it to the pods (%s)", ap.Namespace, ap.Name, b.Waypoint, label)
	}
	for _, r := range w.m.routes() {
		if r.parentIs(s) {
			w.warn(w.m.World.Of(r, ""), remedy, "%s has no effect: it is for waypoint %s, and gateways go past it to the pods (%s)", r, b.Waypoint, label)
		}
	}
}

// tokensElsewhere explains why no token is read: nothing that verifies them is attached where the policy is.
func (s *station) tokensElsewhere(v Verdict) Verdict {
	w := s.w
	every := all[*securityv1.RequestAuthentication](w.m, kindTokens)
	if len(policy.AttachedRequestAuthentications(s.target(), every)) > 0 {
		return v
	}
	v.Cause += "; no RequestAuthentication is attached here, so that nobody reads tokens"
	v.Remedy = "attach a RequestAuthentication with the same targetRefs as the policy"
	for _, ra := range every {
		if ra.Namespace == w.destinationNamespace() || ra.Namespace == s.proxy.Namespace {
			field := "spec.selector"
			if refs := ra.Spec.GetTargetRefs(); len(refs) > 0 {
				field = "spec.targetRefs[0]"
			} else if ra.Spec.GetTargetRef() != nil {
				field = "spec.targetRef"
			}
			v.Cause += fmt.Sprintf("; RequestAuthentication %s/%s is attached to something else", ra.Namespace, ra.Name)
			v = v.about(w.m.World.Of(ra, field))
		}
	}
	return v
}

// portsText says that a rule is about other ports, and which one counts here.
func portsText(r *securityapi.Rule, port uint16, whose string) string {
	for _, to := range r.GetTo() {
		ports := to.GetOperation().GetPorts()
		if len(ports) > 0 && !slices.Contains(ports, fmt.Sprint(port)) {
			return fmt.Sprintf(" (here it is port %d, %s)", port, whose)
		}
	}
	return ""
}

// httpText are the attributes of requests that a rule is about.
func httpText(r *securityapi.Rule) bool {
	for _, to := range r.GetTo() {
		o := to.GetOperation()
		if len(o.GetMethods())+len(o.GetNotMethods())+len(o.GetPaths())+len(o.GetNotPaths())+len(o.GetHosts())+len(o.GetNotHosts()) > 0 {
			return true
		}
	}
	for _, from := range r.GetFrom() {
		if f := from.GetSource(); len(f.GetRequestPrincipals())+len(f.GetNotRequestPrincipals()) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(r.GetWhen(), func(c *securityapi.Condition) bool { return strings.HasPrefix(c.GetKey(), "request.") })
}
