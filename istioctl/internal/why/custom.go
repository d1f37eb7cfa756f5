package why

import (
	"fmt"
	"slices"
	"strings"

	meshapi "istio.io/api/mesh/v1alpha1"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// badCustom ends the names of rules that deny because nobody can be asked.
const badCustom = "-deny-due-to-bad-CUSTOM-action"

// target is what policies are attached to at this proxy, for the destination that is asked for.
func (s *station) target() policy.Target {
	w := s.w
	t := policy.Target{RootNamespace: w.m.Mesh.Settings().RootNamespace, Namespace: s.proxy.Namespace, Gateway: s.proxy.Gateway, Labels: s.proxy.Labels}
	if s.proxy.Kind != simulate.Waypoint {
		t.Proxy = policy.Gateway
		return t
	}
	t.Proxy = policy.Waypoint
	if w.to == nil {
		return t
	}
	if svc := w.m.service(w.to.service); svc != nil {
		kind := policy.KindService
		if svc.Entry != "" {
			kind = policy.KindServiceEntry
		}
		t.Services = []policy.ServiceRef{{Kind: kind, Namespace: svc.Proto.Namespace, Name: svc.Proto.Name}}
	}
	return t
}

// policies are those that the proxy enforces of an action.
func (s *station) policies(action securityapi.AuthorizationPolicy_Action) (out []*securityv1.AuthorizationPolicy) {
	for _, ap := range policy.Attached(s.target(), all[*securityv1.AuthorizationPolicy](s.w.m, kindPolicy)) {
		if ap.Spec.GetAction() == action {
			out = append(out, ap)
		}
	}
	return out
}

// provider finds an authorizer of the mesh configuration.
func (w *walk) provider(name string) *meshapi.MeshConfig_ExtensionProvider {
	for _, p := range w.m.Mesh.Config().GetExtensionProviders() {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}

// serviceOf is where a provider is, and what is to happen when it cannot be asked.
func serviceOf(p *meshapi.MeshConfig_ExtensionProvider) (service string, port uint32, failOpen, ok bool) {
	if x := p.GetEnvoyExtAuthzHttp(); x != nil {
		return x.GetService(), x.GetPort(), x.GetFailOpen(), true
	}
	if x := p.GetEnvoyExtAuthzGrpc(); x != nil {
		return x.GetService(), x.GetPort(), x.GetFailOpen(), true
	}
	return "", 0, false, false
}

// hostOf is a provider's service without the namespace that may stand before it.
func hostOf(service string) string { return service[strings.IndexByte(service, '/')+1:] }

// cannotAsk explains a refusal because a CUSTOM policy has nobody to ask.
func (s *station) cannotAsk(rule string) Verdict {
	w := s.w
	v := denied("", "%s refuses it: a CUSTOM policy matches (%s) whose provider cannot be asked", s.name, rule)
	ns, name, at, ok := l7Policy(strings.TrimSuffix(rule, badCustom))
	ap := w.m.authorizationPolicy(ns, name)
	if !ok || ap == nil {
		return v
	}
	wanted := ap.Spec.GetProvider().GetName()
	v.Cause = fmt.Sprintf("AuthorizationPolicy %s/%s (CUSTOM) matches at %s by rule %d, and its provider %q cannot be asked", ns, name, s.name, at, wanted)
	v = v.about(w.m.World.Of(ap, "spec.provider.name"))
	p := w.provider(wanted)
	if p == nil {
		var names []string
		for _, x := range w.m.Mesh.Config().GetExtensionProviders() {
			if _, _, _, ok := serviceOf(x); ok {
				names = append(names, x.GetName())
			}
		}
		has := "it has none for CUSTOM policies"
		if len(names) > 0 {
			has = "it has " + strings.Join(names, ", ")
		}
		v.Cause += ": there is no such extensionProvider in the mesh configuration; " + has + didYouMean(wanted, names, func(s string) string { return s })
		v.Remedy = "add the provider to extensionProviders of the mesh configuration (ConfigMap istio), or correct its name"
		return v
	}
	service, port, _, ok := serviceOf(p)
	switch {
	case !ok:
		v.Cause += ": it is neither envoyExtAuthzHttp nor envoyExtAuthzGrpc"
		v.Remedy = "name a provider that is one of the two"
	case w.m.lookup(hostOf(service), s.proxy.Namespace) == nil:
		v.Cause += fmt.Sprintf(": its service %s is not in the mesh%s", service, w.m.suggestDestination(shortHost(hostOf(service), w.m.Mesh.Settings())))
		v.Remedy = "deploy the service, or correct the provider's service in the mesh configuration"
	default:
		if f := w.m.faults(kindPolicy, ns, name); len(f) > 0 {
			v.Cause += ": " + describe(f)
		} else {
			v.Cause += fmt.Sprintf(" at %s, port %d, about this connection: only a provider by gRPC is asked about connections without requests", service, port)
		}
		v.Remedy = "use a provider by gRPC (envoyExtAuthzGrpc) for connections without requests, or declare that the port speaks HTTP"
	}
	return v
}

// asked are the CUSTOM policies whose provider is the one at a cluster.
func (s *station) asked(cluster string) (refs []*Ref, name string, failOpen bool) {
	c := parseCluster(cluster)
	for _, ap := range s.policies(securityapi.AuthorizationPolicy_CUSTOM) {
		service, port, open, ok := serviceOf(s.w.provider(ap.Spec.GetProvider().GetName()))
		if ok && port == c.port && hostOf(service) == c.host {
			name, failOpen = ap.Spec.GetProvider().GetName(), open
			refs = append(refs, s.w.m.World.Of(ap, "spec.provider.name"))
		}
	}
	return refs, name, failOpen
}

// askedFact tells of an authorizer that is asked.
func (s *station) askedFact(h *Hop, cluster string) {
	refs, name, _ := s.asked(cluster)
	var ref *Ref
	text := "asked at " + cluster
	if len(refs) > 0 {
		ref, text = refs[0], fmt.Sprintf("%q is asked, at %s", name, cluster)
	}
	h.add("authorizer", text+"; taken to have said yes", ref)
}

// silent is a verdict when one of the authorizers that are asked has no endpoint that could answer.
func (s *station) silent(clusters []string) *Verdict {
	cfg := s.proxy.Config
	for _, name := range clusters {
		c := cfg.Clusters[name]
		if c == nil || c.Discovery != l7.DiscoveryEDS {
			continue
		}
		if e := cfg.EndpointsOf(c); e != nil && slices.ContainsFunc(e.List, func(e *l7.Endpoint) bool { return e.Health == l7.Healthy || e.Health == l7.Degraded }) {
			continue
		}
		refs, provider, failOpen := s.asked(name)
		why := s.emptyCluster(name)
		if failOpen {
			s.w.warn(refs[0], why.Remedy, "authorizer %q cannot be asked (%s); its provider says failOpen, so that all requests pass", provider, why.Cause)
			continue
		}
		v := denied(why.Remedy, "%s asks authorizer %q, and nobody answers: %s", s.name, provider, why.Cause).about(refs...).about(why.Refs...)
		v.Status = 403
		return &v
	}
	return nil
}

// deniedConnection explains a refusal of a connection by the policies before requests are looked at.
func (s *station) deniedConnection(chain *l7.Chain, steps []l7.Step, details string, conn *l7.Conn) Verdict {
	v := s.deniedByL7(steps, details, conn.Identity, 0)
	if chain.HTTP != nil || len(v.Refs) > 0 {
		return v
	}
	// Rules about requests are not among what the proxy has for connections without.
	var why []string
	for _, ap := range s.policies(securityapi.AuthorizationPolicy_ALLOW) {
		for i, r := range ap.Spec.GetRules() {
			if httpText(r) {
				why = append(why, fmt.Sprintf("%s/%s: rule %d (%s) is about requests, and the port is taken for TCP, so that it allows nothing", ap.Namespace, ap.Name, i, ruleText(r)))
				v = v.about(s.w.m.World.Of(ap, fmt.Sprintf("spec.rules[%d]", i)))
			}
		}
		if len(ap.Spec.GetRules()) == 0 {
			why = append(why, fmt.Sprintf("%s/%s: it has no rules, so it allows nothing", ap.Namespace, ap.Name))
			v = v.about(s.w.m.World.Of(ap, "spec"))
		}
	}
	if len(why) > 0 {
		v.Cause = fmt.Sprintf("ALLOW policies exist at %s, and none of their rules allows this connection of %s: %s", s.name, clientText(conn.Identity), strings.Join(why, "; "))
		v.Remedy = "take what is about requests out of the rule, or declare that the port speaks HTTP (name http-…, appProtocol)"
		v = v.about(s.w.portRef())
	}
	return v
}

// portAsked is the port that the client has asked for; 0 is not known.
func (w *walk) portAsked() uint16 {
	if w.to == nil {
		return 0
	}
	return w.to.port
}
