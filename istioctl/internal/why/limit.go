package why

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// limitFacts are the rate limits that a request takes tokens of. Whether there are any is only known where they are counted.
func (s *station) limitFacts(h *Hop, step l7.Step) {
	namespace, name, _ := strings.Cut(strings.TrimPrefix(step.Filter, policy.RateLimitFilter), "/")
	for _, c := range step.Limit.Concerns {
		text := fmt.Sprintf("%s/%s allows %s", namespace, name, c.Rate)
		if len(c.Values) > 0 {
			text += " for " + strings.Join(c.Values, ", ")
		}
		if c.Divided != "" {
			text += ", divided among all by " + c.Divided
		}
		if !step.Limit.Enforced {
			text += " (dry run)"
		}
		h.add("limit", text, s.w.m.World.Ref(policyapi.KindRateLimitPolicy, namespace, name, s.limitField(namespace, name, c.Limit)))
	}
}

// limitField finds a limit by its name, or by its place.
func (s *station) limitField(namespace, name, limit string) string {
	if p := object[*policyapi.RateLimitPolicy](s.w.m, policyapi.KindRateLimitPolicy, namespace, name); p != nil {
		for i := range p.Spec.Limits {
			if p.Spec.Limits[i].Name == limit {
				return fmt.Sprintf("spec.limits[%d]", i)
			}
		}
	}
	if _, err := strconv.Atoi(limit); err == nil {
		return "spec.limits[" + limit + "]"
	}
	return "spec.limits"
}

// lookAtRateLimits tells of policies that are meant for the destination and limit nothing, or not all that they should.
func (w *walk) lookAtRateLimits() {
	if w.to == nil {
		return
	}
	s := w.m.service(w.to.service)
	b, _ := w.binding()
	for _, p := range all[*policyapi.RateLimitPolicy](w.m, policyapi.KindRateLimitPolicy) {
		f := w.m.faults(policyapi.KindRateLimitPolicy, p.Namespace, p.Name)
		if len(f) == 0 {
			continue
		}
		for i, ref := range p.Spec.TargetRefs {
			if !w.limitIsMeant(p, ref, s, b) {
				continue
			}
			remedy := "correct the name"
			if strings.Contains(describe(f), "served by no waypoint") {
				remedy = "give the service a waypoint: istioctl waypoint apply, and the label istio.io/use-waypoint"
			}
			w.warn(w.m.World.Of(p, fmt.Sprintf("spec.targetRefs[%d]", i)), remedy, "RateLimitPolicy %s/%s: %s", p.Namespace, p.Name, describe(f))
			break
		}
	}
}

// limitIsMeant is whether a target is the destination, its waypoint or one of its routes, or is nearly called so.
func (w *walk) limitIsMeant(p *policyapi.RateLimitPolicy, ref policyapi.TargetRef, s *ambient.Service, b ambient.Binding) bool {
	switch {
	case policy.IsRoute(ref):
		return s != nil && slices.ContainsFunc(w.m.routes(), func(r apiRoute) bool {
			return r.kind == ref.Kind && r.GetNamespace() == p.Namespace && editDistance(r.GetName(), ref.Name) <= 2 && r.parentIs(s)
		})
	case ref.Kind == policy.KindGateway:
		ns, name, _ := strings.Cut(b.Waypoint, "/")
		return name != "" && ns == p.Namespace && editDistance(name, ref.Name) <= 2
	}
	return s != nil && s.Proto.Namespace == p.Namespace && editDistance(s.Proto.Name, ref.Name) <= 2
}
