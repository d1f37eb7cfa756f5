package why

import (
	"fmt"
	"strconv"
	"strings"

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
