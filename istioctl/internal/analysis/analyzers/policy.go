package analyzers

import (
	"fmt"
	"slices"
	"strings"

	meshapi "istio.io/api/mesh/v1alpha1"
	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

func policyAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "auth.AuthorizationPoliciesAnalyzer", Description: "Checks the validity of authorization policies",
			Codes: []analysis.Code{analysis.NoMatchingWorkloads, analysis.ReferencedResourceNotFound},
			Run:   authorizationPolicies,
		},
		{
			Name: "auth.PrincipalAnalyzer", Description: "Checks that the identities which authorization policies name exist",
			Codes: []analysis.Code{analysis.PrincipalUnknown, analysis.PrincipalOtherTrustDomain},
			Run:   principals,
		},
		{
			Name: "auth.BlockedCIDRsAnalyzer", Description: "Checks that istiod restricts from where it fetches the keys of token issuers",
			Codes: []analysis.Code{analysis.JwksURIUnrestricted},
			Run:   keySources,
		},
		{
			Name: "k8sgateway.SelectorAnalyzer", Description: "Check the effectiveness of selector in policies applied to Kubernetes gateways",
			Codes: []analysis.Code{analysis.IneffectiveSelector},
			Run:   gatewaySelectors,
		},
		{
			Name: "k8sgateway.TargetRefAnalyzer", Description: "Checks that what policies target is there and has a proxy that enforces them",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.IneffectivePolicy},
			Run:   policyTargets,
		},
	}
}

// policy is what objects that apply to workloads have in common.
type policy struct {
	r        *analysis.Resource
	selector map[string]string
	targets  []*typeapi.PolicyTargetReference
	one      bool // a single target
}

func policies(s *analysis.Snapshot) []policy {
	var out []policy
	add := func(r *analysis.Resource, selector *typeapi.WorkloadSelector, ref *typeapi.PolicyTargetReference, refs []*typeapi.PolicyTargetReference) {
		p := policy{r: r, selector: selector.GetMatchLabels(), targets: refs}
		if ref != nil {
			p.targets, p.one = []*typeapi.PolicyTargetReference{ref}, true
		}
		out = append(out, p)
	}
	for r, o := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		add(r, o.Spec.GetSelector(), o.Spec.GetTargetRef(), o.Spec.GetTargetRefs())
	}
	for r, o := range analysis.All[*securityv1.RequestAuthentication](s) {
		add(r, o.Spec.GetSelector(), o.Spec.GetTargetRef(), o.Spec.GetTargetRefs())
	}
	for r, o := range analysis.All[*telemetryv1.Telemetry](s) {
		add(r, o.Spec.GetSelector(), o.Spec.GetTargetRef(), o.Spec.GetTargetRefs())
	}
	for r, o := range analysis.All[*policyapi.RateLimitPolicy](s) {
		var refs []*typeapi.PolicyTargetReference
		for _, ref := range o.Spec.TargetRefs {
			refs = append(refs, &typeapi.PolicyTargetReference{Group: ref.Group, Kind: ref.Kind, Name: ref.Name})
		}
		add(r, nil, nil, refs)
	}
	for r, o := range analysis.All[*extensionsv1alpha1.WasmPlugin](s) {
		add(r, o.Spec.GetSelector(), o.Spec.GetTargetRef(), o.Spec.GetTargetRefs())
	}
	return out
}

// scope is where the workloads of an object are looked for: everywhere for one of the root namespace.
func scope(s *analysis.Snapshot, namespace string) string {
	if namespace == s.Ambient.RootNamespace {
		return ""
	}
	return namespace
}

func authorizationPolicies(s *analysis.Snapshot) (out analysis.Messages) {
	for r, ap := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		namespaces(s, &out, r, ap.Spec.GetRules())
		if name := ap.Spec.GetProvider().GetName(); ap.Spec.GetAction() == securityapi.AuthorizationPolicy_CUSTOM && s.Configured && !providerKnown(s, name) {
			out.Add(analysis.ReferencedResourceNotFound, r, "spec.provider.name", "extension provider", name)
		}
		if ap.Spec.GetTargetRef() != nil || len(ap.Spec.GetTargetRefs()) > 0 || !s.Known("Pod") {
			continue
		}
		selector := ap.Spec.GetSelector().GetMatchLabels()
		where := scope(s, ap.Namespace)
		if !s.Live && len(s.Workloads(where)) == 0 {
			continue
		}
		field := "spec.selector.matchLabels"
		if len(selector) == 0 {
			field = "metadata.name"
			if where == "" {
				continue
			}
		}
		if len(s.Select(where, selector)) == 0 {
			out.Add(analysis.NoMatchingWorkloads, r, field, labelText(selector))
		}
	}
	return out
}

// providerKnown tells whether the mesh's configuration has an extension provider.
func providerKnown(s *analysis.Snapshot, name string) bool {
	return slices.ContainsFunc(s.Mesh.GetExtensionProviders(), func(p *meshapi.MeshConfig_ExtensionProvider) bool { return p.GetName() == name })
}

// namespaces reports those that rules name and that are not there.
func namespaces(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, rules []*securityapi.Rule) {
	if !s.Known("Namespace") || !s.Live && !namespacesGiven(s) {
		return
	}
	for i, rule := range rules {
		for j, from := range rule.GetFrom() {
			source := from.GetSource()
			for _, list := range []struct {
				field string
				names []string
			}{{"namespaces", source.GetNamespaces()}, {"notNamespaces", source.GetNotNamespaces()}} {
				for k, name := range list.names {
					if strings.Contains(name, "*") {
						continue
					}
					if _, _, ok := analysis.Find[*corev1.Namespace](s, "", name); !ok {
						field := at(at(at("spec.rules", i)+".from", j)+".source."+list.field, k)
						out.Add(analysis.ReferencedResourceNotFound, r, field, "namespace", name)
					}
				}
			}
		}
	}
}

// namespacesGiven tells whether the files say which namespaces there are.
func namespacesGiven(s *analysis.Snapshot) bool {
	for r := range analysis.All[*corev1.Namespace](s) {
		if !r.Assumed {
			return true
		}
	}
	return false
}

func principals(s *analysis.Snapshot) (out analysis.Messages) {
	for r, ap := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		for i, rule := range ap.Spec.GetRules() {
			for j, from := range rule.GetFrom() {
				for k, name := range from.GetSource().GetPrincipals() {
					principal(s, &out, r, at(at(at("spec.rules", i)+".from", j)+".source.principals", k), name)
				}
			}
		}
	}
	return out
}

func principal(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, field, name string) {
	parts := strings.Split(name, "/")
	if strings.Contains(name, "*") || len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return
	}
	domains := append([]string{s.Ambient.TrustDomain, "cluster.local"}, s.Ambient.TrustDomainAliases...)
	switch {
	case !slices.Contains(domains, parts[0]):
		out.Add(analysis.PrincipalOtherTrustDomain, r, field, name, s.Ambient.TrustDomain)
	case s.Live && s.Known("ServiceAccount"):
		if _, _, ok := analysis.Find[*corev1.ServiceAccount](s, parts[2], parts[4]); !ok && !accountOfGateway(s, parts[2], parts[4]) {
			out.Add(analysis.PrincipalUnknown, r, field, name, parts[4], parts[2])
		}
	}
}

// accountOfGateway tells whether a ServiceAccount is made for a Gateway, if only once that is applied.
func accountOfGateway(s *analysis.Snapshot, namespace, name string) bool {
	for _, gw := range analysis.All[*gatewayv1.Gateway](s) {
		if gw.Namespace != namespace {
			continue
		}
		if name == gw.Annotations[annotationAccount] || name == gw.Name || name == gw.Name+"-"+string(gw.Spec.GatewayClassName) {
			return true
		}
	}
	return false
}

func keySources(s *analysis.Snapshot) (out analysis.Messages) {
	var names []string
	for r, ra := range analysis.All[*securityv1.RequestAuthentication](s) {
		if slices.ContainsFunc(ra.Spec.GetJwtRules(), func(rule *securityapi.JWTRule) bool { return rule.GetJwks() == "" }) {
			names = append(names, r.FullName())
		}
	}
	if len(names) == 0 {
		return nil
	}
	const most = 5
	text := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	for r, d := range analysis.All[*appsv1.Deployment](s) {
		if d.Labels["app"] != "istiod" {
			continue
		}
		if !slices.ContainsFunc(d.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "BLOCKED_CIDRS_IN_JWKS_URIS" && e.Value != "" })
		}) {
			out.Add(analysis.JwksURIUnrestricted, r, "metadata.name", len(names), text)
		}
	}
	return out
}

func gatewaySelectors(s *analysis.Snapshot) (out analysis.Messages) {
	for _, p := range policies(s) {
		if len(p.selector) == 0 || len(p.targets) > 0 {
			continue
		}
		var said []string
		for _, w := range s.Select(scope(s, p.r.Namespace), p.selector) {
			name := gatewayOf(s, w)
			if full := w.Namespace + "/" + name; name != "" && !slices.Contains(said, full) {
				said = append(said, full)
				out.Add(analysis.IneffectiveSelector, p.r, "spec.selector.matchLabels", full)
			}
		}
		// What is deployed for a Gateway of a file has these labels, too.
		for r, gw := range analysis.All[*gatewayv1.Gateway](s) {
			full := gw.Namespace + "/" + gw.Name
			if !slices.Contains(said, full) && gw.Namespace == p.r.Namespace && !r.Live() && p.selector[analysis.LabelGatewayName] == gw.Name {
				out.Add(analysis.IneffectiveSelector, p.r, "spec.selector.matchLabels", full)
			}
		}
	}
	return out
}

func policyTargets(s *analysis.Snapshot) (out analysis.Messages) {
	for _, p := range policies(s) {
		for i, t := range p.targets {
			field := at("spec.targetRefs", i)
			if p.one {
				field = "spec.targetRef"
			}
			targetOf(s, &out, p, t, field)
		}
	}
	return out
}

func targetOf(s *analysis.Snapshot, out *analysis.Messages, p policy, t *typeapi.PolicyTargetReference, field string) {
	namespace := p.r.Namespace
	if t.GetNamespace() != "" {
		namespace = t.GetNamespace()
	}
	full := namespace + "/" + t.GetName()
	var h *analysis.Host
	var found bool
	switch t.GetKind() {
	case "Gateway":
		_, _, found = analysis.Find[*gatewayv1.Gateway](s, namespace, t.GetName())
	case "GatewayClass":
		full = t.GetName()
		_, _, found = analysis.Find[*gatewayv1.GatewayClass](s, "", t.GetName())
		if found && namespace != s.Ambient.RootNamespace {
			out.Add(analysis.IneffectivePolicy, p.r, field, fmt.Sprintf("policies that target a GatewayClass are for the whole mesh and belong into namespace %s", s.Ambient.RootNamespace))
		}
	case "Service":
		h = s.Host(s.Ambient.Hostname(namespace, t.GetName()), namespace)
		found = h != nil
	case "ServiceEntry":
		h = entryHost(s, namespace, t.GetName())
		found = h != nil
	case "HTTPRoute":
		_, _, found = analysis.Find[*gatewayv1.HTTPRoute](s, namespace, t.GetName())
	case "GRPCRoute":
		_, _, found = analysis.Find[*gatewayv1.GRPCRoute](s, namespace, t.GetName())
	default:
		return
	}
	if !found {
		if s.Known(t.GetKind()) {
			out.Add(analysis.ReferencedResourceNotFound, p.r, field+".name", t.GetKind(), full)
		}
		return
	}
	if h != nil && knownNamespace(s, h.Namespace) && s.Binding(h).Waypoint == "" {
		out.Add(analysis.IneffectivePolicy, p.r, field, fmt.Sprintf("%s %s has no waypoint, so nothing enforces the policy; create one with 'istioctl waypoint apply -n %s --enroll-namespace'", t.GetKind(), full, namespace))
	}
}

// knownNamespace tells whether a namespace's labels are known: files may be for one that has labels already.
func knownNamespace(s *analysis.Snapshot, name string) bool {
	_, r, ok := analysis.Find[*corev1.Namespace](s, "", name)
	return ok && !r.Assumed
}

// authenticates tells whether a RequestAuthentication applies to a workload.
func authenticates(s *analysis.Snapshot, w *analysis.Workload) bool {
	for _, ra := range analysis.All[*securityv1.RequestAuthentication](s) {
		if ra.Namespace != w.Namespace && ra.Namespace != s.Ambient.RootNamespace {
			continue
		}
		if ra.Spec.GetTargetRef() == nil && len(ra.Spec.GetTargetRefs()) == 0 && analysis.Matches(ra.Spec.GetSelector().GetMatchLabels(), w.Labels) {
			return true
		}
	}
	return false
}
