package dump

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Endpoints are compared by what they mean, not as they are written: a proxy shows its own opinion of their health, fills in weights that
// nobody has set, and may order them otherwise.

// compareEndpoints is the section of endpoints, if both dumps have one.
func compareEndpoints(want, have *Envoy) []Difference {
	if !want.saysEndpoints || !have.saysEndpoints {
		return nil
	}
	wanted, had := places(want.endpoints), places(have.endpoints)
	var names []string
	for _, of := range []map[string][]string{wanted, had} {
		for name := range of {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	var out []string
	for _, name := range names {
		from, to := "istiod: "+name, "proxy: "+name
		if _, has := had[name]; !has {
			to = "proxy: it does not have it"
		}
		if _, wants := wanted[name]; !wants {
			from = "istiod: it should not be there"
		}
		out = append(out, unified(from, to, wanted[name], had[name])...)
	}
	return []Difference{{"Endpoints", out}}
}

// places are the endpoints of each cluster that the control plane has sent, with the locality and priority that they are in, a line each.
func places(all []resource) map[string][]string {
	out := map[string][]string{}
	for _, r := range all {
		name := cmp.Or(text(r.body, "clusterName"), r.name)
		if r.static || name == "" {
			continue
		}
		lines := []string{}
		for _, locality := range list(r.body, "endpoints") {
			var parts []string
			for _, part := range []string{"region", "zone", "subZone"} {
				parts = append(parts, text(locality, "locality", part))
			}
			where := strings.TrimRight(strings.Join(parts, "/"), "/")
			for _, host := range list(locality, "lbEndpoints") {
				shown, _, _ := addressText(at(host, "endpoint", "address"))
				weight := max(number(host, "loadBalancingWeight"), 1)
				lines = append(lines, fmt.Sprintf("%s locality %s priority %d weight %s", shown, cmp.Or(where, "none"), number(locality, "priority"), strconv.FormatInt(weight, 10)))
			}
		}
		slices.Sort(lines)
		out[name] = lines
	}
	return out
}
