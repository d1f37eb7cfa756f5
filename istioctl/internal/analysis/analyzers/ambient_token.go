package analyzers

import (
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// tokens reports policies about what is in tokens where nobody reads any.
func tokens(s *analysis.Snapshot) (out analysis.Messages) {
	verified := map[string]bool{}
	for _, ra := range analysis.All[*securityv1.RequestAuthentication](s) {
		for _, t := range slices.Concat(ra.Spec.GetTargetRefs(), []*typeapi.PolicyTargetReference{ra.Spec.GetTargetRef()}) {
			verified[targetName(ra.Namespace, t)] = true
		}
	}
	for r, ap := range analysis.All[*securityv1.AuthorizationPolicy](s) {
		field, what := tokenField(&ap.Spec)
		if field == "" {
			continue
		}
		targets := ap.Spec.GetTargetRefs()
		if one := ap.Spec.GetTargetRef(); one != nil {
			targets = []*typeapi.PolicyTargetReference{one}
		}
		for _, t := range targets {
			name := targetName(ap.Namespace, t)
			if t.GetKind() == "GatewayClass" || verified[name] || verified["GatewayClass istio-waypoint"] || t.GetKind() == "ServiceEntry" {
				continue
			}
			if t.GetKind() == "Service" {
				if h := s.Host(s.Ambient.Hostname(ap.Namespace, t.GetName()), ap.Namespace); h == nil || verified["Gateway "+s.Binding(h).Waypoint] {
					continue
				}
			}
			out.Add(analysis.TokensNotVerified, r, field, what, name)
		}
	}
	return out
}

func targetName(namespace string, t *typeapi.PolicyTargetReference) string {
	if t.GetKind() == "GatewayClass" {
		return "GatewayClass " + t.GetName()
	}
	return t.GetKind() + " " + namespace + "/" + t.GetName()
}

// tokenField is the first that is about tokens, and what it looks at. Rules that hold without a token are none.
func tokenField(ap *securityapi.AuthorizationPolicy) (field, what string) {
	for i, rule := range ap.GetRules() {
		for j, from := range rule.GetFrom() {
			if len(from.GetSource().GetRequestPrincipals()) > 0 {
				return at(at("spec.rules", i)+".from", j) + ".source.requestPrincipals", "requestPrincipals"
			}
		}
		for j, when := range rule.GetWhen() {
			if strings.HasPrefix(when.GetKey(), "request.auth.") && len(when.GetValues()) > 0 {
				return at(at("spec.rules", i)+".when", j) + ".key", when.GetKey()
			}
		}
	}
	return "", ""
}
