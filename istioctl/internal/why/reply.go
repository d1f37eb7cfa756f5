package why

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// written is the rule that a route comes from; the Kind is empty for one that no object asked for.
type written struct{ Kind, Namespace, Name, Field string }

// written reads where a route comes from.
func (w *walk) written(rt *l7.Route) written {
	if rt == nil {
		return written{}
	}
	config := rt.Metadata.GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue()
	// /apis/group/version/namespaces/namespace/kind/name
	parts := strings.Split(strings.TrimPrefix(config, "/"), "/")
	if len(parts) != 7 {
		return written{}
	}
	o := written{Namespace: parts[4], Name: parts[6]}
	switch parts[5] {
	case "virtual-service":
		o.Kind = "VirtualService"
	case "http-route":
		o.Kind = "HTTPRoute"
	case "grpc-route":
		o.Kind = "GRPCRoute"
	default:
		o.Kind = parts[5]
	}
	if p, ok := simulate.Unmark(rt.Name); ok {
		o.Namespace, o.Name, _ = strings.Cut(p.Object, "/")
		o.Field = p.Field
		return o
	}
	rule := strings.TrimPrefix(rt.Name, o.Namespace+"."+o.Name+".")
	if _, err := strconv.Atoi(rule); err == nil {
		o.Field = "spec.rules[" + rule + "]"
	} else if r := object[*gatewayv1.HTTPRoute](w.m, "HTTPRoute", o.Namespace, o.Name); r != nil {
		i := slices.IndexFunc(r.Spec.Rules, func(x gatewayv1.HTTPRouteRule) bool { return x.Name != nil && string(*x.Name) == rule })
		o.Field = fmt.Sprintf("spec.rules[%d]", max(i, 0))
	}
	return o
}

// routeRef is where a route is written, or a field of it.
func (w *walk) routeRef(rt *l7.Route, field string) *Ref {
	o := w.written(rt)
	if o.Kind == "" {
		return nil
	}
	if field != "" && o.Field != "" {
		field = o.Field + "." + field
	} else {
		field = o.Field
	}
	return w.m.World.Ref(o.Kind, o.Namespace, o.Name, field)
}

func (w *walk) routeFact(h *Hop, o *outcome) {
	rt := o.d.Route
	switch at := w.written(rt); {
	case rt == nil:
		h.add("route", "none matches", nil)
	case at.Kind == "":
		h.add("route", "the default: no HTTPRoute or VirtualService is about this", nil)
	default:
		text := at.Kind + " " + at.Namespace + "/" + at.Name
		if at.Field != "" {
			text += ", " + strings.TrimPrefix(at.Field, "spec.")
		}
		if o.count < draws && rt.ByChance() {
			text += fmt.Sprintf(" (for %d %% of the requests)", o.count*100/draws)
		}
		h.add("route", text, w.routeRef(rt, ""))
	}
}

// replied explains an answer of the proxy itself.
func (s *station) replied(chain *l7.Chain, o *outcome, conn *l7.Conn) Verdict {
	w, reply := s.w, o.d.Reply
	var v Verdict
	switch details := reply.Details; {
	case strings.HasPrefix(details, "rbac_access_denied"):
		v = s.deniedByL7(o.steps, details, conn.Identity, reply.Status)
	case strings.HasPrefix(details, "jwt_authn"):
		v = s.tokenRefused(o, conn)
	case details == "fault_filter_abort":
		v = broken("take the fault away when the test is over", "a fault is injected on purpose: %s answers %d", s.name, reply.Status).about(w.routeRef(o.d.Route, "fault.abort"))
	case details == "route_not_found":
		v = s.noRoute(chain, o)
	case details == "cluster_not_found":
		v = s.noCluster(s.missingTarget(o.d.Route), o.d.Route)
	case details == "direct_response":
		v = s.direct(o)
	default:
		v = broken("", "%s answers %d: %s", s.name, reply.Status, details)
	}
	v.Status = reply.Status
	return v
}

// missingTarget is the cluster of a route that is not there.
func (s *station) missingTarget(rt *l7.Route) string {
	if rt == nil {
		return ""
	}
	for _, t := range rt.Targets() {
		if s.proxy.Config.Clusters[t.Cluster] == nil {
			return t.Cluster
		}
	}
	return ""
}

// deniedByL7 explains a refusal of policies at the proxy.
func (s *station) deniedByL7(steps []l7.Step, details, client string, status int) Verdict {
	w := s.w
	v := denied("", "%s refuses it: %s", s.name, details)
	v.Status = status
	for _, step := range steps {
		r := step.RBAC
		if r == nil || r.Allowed || step.DryRun {
			continue
		}
		if r.By != "" {
			ns, name, rule, ok := l7Policy(r.By)
			if !ok {
				v = s.cannotAsk(r.By)
				v.Status = status
				return v
			}
			text := ""
			if ap := w.m.authorizationPolicy(ns, name); ap != nil && rule < len(ap.Spec.GetRules()) {
				text = " (" + ruleText(ap.Spec.GetRules()[rule]) + ")"
			}
			v.Cause = fmt.Sprintf("AuthorizationPolicy %s/%s denies it at %s: rule %d%s matches %s", ns, name, s.name, rule, text, clientText(client))
			v.Remedy = "change the rule, or the request"
			return v.about(w.m.World.Ref("AuthorizationPolicy", ns, name, fmt.Sprintf("spec.rules[%d]", rule)))
		}
		var why []string
		for _, name := range policyObjects(r.Policies) {
			ns, policy, _ := strings.Cut(name, "/")
			text, field := "", "spec"
			if ap := w.m.authorizationPolicy(ns, policy); ap != nil {
				text, field = rulesText(ap, w.portAsked())
			}
			why = append(why, name+": "+text)
			v = v.about(w.m.World.Ref("AuthorizationPolicy", ns, policy, field))
		}
		v.Cause = fmt.Sprintf("ALLOW policies exist at %s, and none of their rules allows this request of %s: %s", s.name, clientText(client), strings.Join(why, "; "))
		v.Remedy = "add a rule that allows it"
		if slices.ContainsFunc(v.Refs, func(r *Ref) bool { return s.needsToken(r) }) {
			says, remedy := "the request has no token that was accepted", "send a token (-H 'Authorization: Bearer …') of an issuer that the RequestAuthentication names"
			if w.request("").Header.Value("authorization") != "" {
				says, remedy = "the token of the request does not give the principal or the claims that they ask for", "send a token that has them, of an issuer that a RequestAuthentication names"
			}
			v.Cause, v.Remedy = v.Cause+"; "+says, remedy
			v = s.tokensElsewhere(v)
		}
		return v
	}
	return v
}

// clientText is how policies see who has sent a request, by the identity that mutual TLS has proven.
func clientText(identity string) string {
	if identity == "" {
		return "a client without an identity"
	}
	return identity
}

// needsToken is whether a policy asks for what only a token gives.
func (s *station) needsToken(r *Ref) bool {
	ap := s.w.m.authorizationPolicy(r.Namespace, r.Name)
	text := ""
	if ap != nil {
		text, _ = rulesText(ap, s.w.portAsked())
	}
	return strings.Contains(text, "requestPrincipals") || strings.Contains(text, "request.auth")
}

// rulesText says what an ALLOW policy takes.
func rulesText(ap *securityv1.AuthorizationPolicy, port uint16) (text, field string) {
	if len(ap.Spec.GetRules()) == 0 {
		return "it has no rules, so it allows nothing", "spec"
	}
	var out []string
	for i, r := range ap.Spec.GetRules() {
		out = append(out, fmt.Sprintf("rule %d takes only %s%s", i, ruleText(r), portsText(r, port, "the service's")))
	}
	return strings.Join(out, ", "), "spec.rules[0]"
}

// tokenRefused explains a token that was not accepted.
func (s *station) tokenRefused(o *outcome, _ *l7.Conn) Verdict {
	says := o.d.Reply.Details
	for _, step := range o.steps {
		if step.Denied != "" {
			says = step.Denied
		}
	}
	v := denied("send a token that the RequestAuthentication takes: of its issuer, signed with its keys, not expired", "%s does not accept the token: %s", s.name, says)
	w := s.w
	for _, ra := range policy.AttachedRequestAuthentications(s.target(), all[*securityv1.RequestAuthentication](w.m, kindTokens)) {
		var issuers []string
		for i, rule := range ra.Spec.GetJwtRules() {
			issuers = append(issuers, rule.GetIssuer())
			v = v.about(w.m.World.Of(ra, fmt.Sprintf("spec.jwtRules[%d].issuer", i)))
			if rule.GetJwks() == "" && w.m.World.Files {
				w.notes = addOnce(w.notes, "the keys of issuer "+rule.GetIssuer()+" are fetched by the control plane, and are not known here: name them by --jwks URI=FILE")
			}
		}
		v.Cause += fmt.Sprintf("; RequestAuthentication %s/%s takes tokens of %s", ra.Namespace, ra.Name, strings.Join(issuers, ", "))
	}
	return v
}

// noRoute explains a 404.
func (s *station) noRoute(chain *l7.Chain, o *outcome) Verdict {
	w := s.w
	misses, ok := s.proxy.Config.Misses(chain, o.req)
	if !ok {
		v := broken("let a route have the host, or ask for one that has a route (-H 'Host: …')",
			"%s has no route for the host %q (404)", s.name, o.req.Head.Authority)
		for _, r := range w.m.routes() {
			if len(r.hostnames) > 0 && !r.forConnections() && s.boundTo(r) {
				v = v.about(w.m.World.Of(r, "spec.hostnames"))
			}
		}
		return s.orGateway(s.classicMisses(v, o.req.Head.Authority, false))
	}
	v := broken("add a rule that matches, or a last one that matches everything", "no rule of the routes at %s matches %s %s (404)", s.name, o.req.Head.Method, o.req.Head.Path)
	var why []string
	for _, miss := range misses {
		at := w.written(miss.Route)
		if at.Kind == "" {
			continue
		}
		why = append(why, fmt.Sprintf("%s %s/%s %s (%s) does not match by %s", at.Kind, at.Namespace, at.Name, strings.TrimPrefix(at.Field, "spec."), miss.Wanted, miss.What))
		if ref := w.routeRef(miss.Route, ""); !slices.ContainsFunc(v.Refs, func(have *Ref) bool { return *have == *ref }) {
			v = v.about(ref)
		}
	}
	if len(why) > 5 {
		why = append(why[:5], fmt.Sprintf("and %d more", len(why)-5))
	}
	if len(why) > 0 {
		v.Cause += ": " + strings.Join(why, "; ")
	} else {
		v = s.classicMisses(v, o.req.Head.Authority, false)
	}
	return s.orGateway(v)
}

// orGateway speaks of the Gateway when there is nothing else, and tells what is wrong with routes to it.
func (s *station) orGateway(v Verdict) Verdict {
	w := s.w
	for _, r := range w.m.routes() {
		if r.forConnections() || !s.boundTo(r) {
			continue
		}
		if f := w.m.faults(r.kind, r.GetNamespace(), r.GetName()); len(f) > 0 {
			v.Cause += fmt.Sprintf("; %s: %s", r, describe(f))
			v = v.about(w.m.World.Of(r, cmp.Or(r.parentField(func(p gatewayv1.ParentReference) bool { return s.isParent(r, p) }), "spec")))
			if slices.ContainsFunc(f, func(c condition) bool { return c.Reason == string(gatewayv1.RouteReasonNotAllowedByListeners) }) {
				v.Remedy = "let the Gateway's listener take routes of namespace " + r.GetNamespace() + " (allowedRoutes.namespaces)"
				v = v.about(w.m.World.Ref("Gateway", s.proxy.Namespace, s.proxy.Gateway, "spec.listeners[0]"))
			}
		}
	}
	v = s.listenerSetFaults(v)
	if len(v.Refs) == 0 {
		return s.aboutGateway(v)
	}
	return v
}

// direct explains an answer that a route gives itself.
func (s *station) direct(o *outcome) Verdict {
	w, rt := s.w, o.d.Route
	at := w.written(rt)
	status := o.d.Reply.Status
	if at.Kind == "" {
		return broken("", "%s answers %d by itself", s.name, status).about(w.routeRef(rt, ""))
	}
	faults := w.m.faults(at.Kind, at.Namespace, at.Name)
	name := at.Kind + " " + at.Namespace + "/" + at.Name
	switch {
	case status < 400:
		return Verdict{Outcome: Allowed, Cause: fmt.Sprintf("%s answers %d by the route %s", s.name, status, name), Refs: []*Ref{w.routeRef(rt, "")}}
	case status == 500 && w.weightless(at) != "":
		field := w.weightless(at)
		return broken("give one of them a weight above 0", "all backends of %s %s have the weight 0, so that nobody can take the request (500)", name, strings.TrimPrefix(at.Field, "spec.")).
			about(w.m.World.Ref(at.Kind, at.Namespace, at.Name, field))
	case len(faults) > 0:
		v := broken(remedyOf(faults), "%s cannot do what %s says: %s", s.name, name, describe(faults)).about(w.routeRef(rt, ""))
		if field := faultField(faults); at.Kind == "VirtualService" && field != "" {
			v.Refs = []*Ref{w.m.World.Ref(at.Kind, at.Namespace, at.Name, field)}
		} else if ref := w.backendRef(at); ref != nil {
			v.Refs = []*Ref{ref}
		}
		return v
	}
	return broken("", "%s answers %d, as %s says", s.name, status, name).about(w.routeRef(rt, ""))
}

// remedyOf knows what helps against some conditions.
func remedyOf(faults []condition) string {
	for _, c := range faults {
		switch c.Reason {
		case "RefNotPermitted":
			return "make a ReferenceGrant in the backend's namespace that permits references from the route's"
		case "BackendNotFound":
			return "correct the backend's name or port, or deploy it"
		}
	}
	return ""
}

// backendRef is the place of the backends of a rule.
func (w *walk) backendRef(at written) *Ref {
	switch at.Kind {
	case "HTTPRoute", "GRPCRoute":
		return w.m.World.Ref(at.Kind, at.Namespace, at.Name, at.Field+".backendRefs[0]")
	case "VirtualService":
		return w.m.World.Ref(at.Kind, at.Namespace, at.Name, at.Field+".route")
	}
	return nil
}

// weightless is the field of the backends if all of them have the weight 0.
func (w *walk) weightless(at written) string {
	i := -1
	if _, err := fmt.Sscanf(at.Field[strings.LastIndexByte(at.Field, '[')+1:], "%d", &i); err != nil || i < 0 {
		return ""
	}
	switch at.Kind {
	case "HTTPRoute":
		r := object[*gatewayv1.HTTPRoute](w.m, at.Kind, at.Namespace, at.Name)
		if r == nil || i >= len(r.Spec.Rules) || len(r.Spec.Rules[i].BackendRefs) == 0 {
			return ""
		}
		for _, b := range r.Spec.Rules[i].BackendRefs {
			if b.Weight == nil || *b.Weight > 0 {
				return ""
			}
		}
		return at.Field + ".backendRefs[0].weight"
	case "VirtualService":
		for _, vs := range w.m.virtualServices() {
			if vs.Namespace != at.Namespace || vs.Name != at.Name || i >= len(vs.Spec.GetHttp()) || len(vs.Spec.GetHttp()[i].GetRoute()) < 2 {
				continue
			}
			if !slices.ContainsFunc(vs.Spec.GetHttp()[i].GetRoute(), func(d *networkingapi.HTTPRouteDestination) bool { return d.GetWeight() > 0 }) {
				return at.Field + ".route[0].weight"
			}
		}
	}
	return ""
}

// clusterName is what the name of a cluster says.
type clusterName struct {
	port         uint32
	subset, host string
	ok           bool
}

func parseCluster(name string) clusterName {
	parts := strings.SplitN(name, "|", 4)
	if len(parts) != 4 {
		return clusterName{}
	}
	port, err := strconv.ParseUint(parts[1], 10, 16)
	c := clusterName{port: uint32(port), subset: parts[2], host: parts[3], ok: err == nil}
	if parts[0] == "inbound-vip" {
		_, c.subset, _ = strings.Cut(parts[2], "/")
	}
	return c
}

// noCluster explains a destination of a route that is not there.
func (s *station) noCluster(name string, rt *l7.Route) Verdict {
	w := s.w
	c := parseCluster(name)
	at := w.written(rt)
	v := broken("", "%s has nowhere to send it: there is no cluster %q", s.name, name)
	if at.Kind != "" {
		v = v.about(w.backendRef(at))
		if f := w.m.faults(at.Kind, at.Namespace, at.Name); len(f) > 0 {
			v.Cause = fmt.Sprintf("%s has nowhere to send it: %s %s/%s: %s", s.name, at.Kind, at.Namespace, at.Name, describe(f))
			v.Remedy = remedyOf(f)
		}
	}
	if !c.ok {
		return v
	}
	svc := w.m.lookup(c.host, s.proxy.Namespace)
	switch {
	case svc == nil:
		v.Cause = fmt.Sprintf("the route leads to host %s, and there is no such service%s", c.host, w.m.suggestDestination(shortHost(c.host, w.m.Mesh.Settings())))
		v.Remedy = "correct the host of the destination, or deploy the service"
	case c.subset != "":
		v.Cause = fmt.Sprintf("the route leads to subset %q of %s, and no DestinationRule has a subset of that name", c.subset, c.host)
		v.Remedy = "define the subset in a DestinationRule for the host"
		for _, dr := range w.destinationRules(c.host) {
			v = v.about(w.m.World.Of(dr, "spec.subsets"))
		}
	default:
		v.Cause = fmt.Sprintf("the route leads to port %d of %s, which the service does not have", c.port, c.host)
		v = v.about(w.m.serviceRef(w.m.service(svc), "spec.ports"))
		v.Remedy = "correct the port of the destination"
	}
	return v
}

// emptyCluster explains a destination without endpoints.
func (s *station) emptyCluster(name string) Verdict {
	w := s.w
	c := parseCluster(name)
	svc := w.m.service(w.m.lookup(c.host, s.proxy.Namespace))
	if !c.ok || svc == nil {
		return broken("", "%s has no endpoints for cluster %q", s.name, name)
	}
	var subset *networkingapi.Subset
	if dr, i := w.subset(svc.Proto.Hostname, c.subset); dr != nil {
		subset = dr.Spec.GetSubsets()[i]
	}
	before := w.to
	w.to = &destination{service: w.m.lookup(c.host, s.proxy.Namespace), port: uint16(c.port)}
	v := w.empty(svc, subset, c.subset, s.vantage())
	if d := s.distributed(c); d != nil && v.unexplained {
		v = *d
	}
	w.to = before
	v.Status = 503
	return v
}
