package analyzers

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

// rule is one of a VirtualService, of whichever protocol.
type rule struct {
	name    string
	field   string
	matches []match
}

// match is one of a rule's alternatives.
type match struct {
	// key is the same for those that match the same; empty for one that matches everything.
	key string
	// prefix of the path, when that is all there is.
	prefix   string
	isPrefix bool
	// path that is matched, as an exact one or by prefix, and the rest of the key.
	path, rest string
}

func unusedRules(s *analysis.Snapshot) (out analysis.Messages) {
	for r, vs := range analysis.All[*networkingv1.VirtualService](s) {
		unusedOf(&out, r, httpRules(&vs.Spec))
		unusedOf(&out, r, tlsRules(&vs.Spec))
		unusedOf(&out, r, tcpRules(&vs.Spec))
	}
	return out
}

// unusedOf reports the rules after one that takes everything, and matches that an earlier rule has.
func unusedOf(out *analysis.Messages, r *analysis.Resource, rules []rule) {
	seen := map[string]int{} // match → rule
	var prefixes []struct {
		match
		rule int
	}
	all := -1
	for i, rule := range rules {
		if all >= 0 {
			out.Add(analysis.UnreachableRule, r, rule.field, rule.name, "only the last rule can have no matches")
			continue
		}
		if len(rule.matches) == 0 {
			all = i
			continue
		}
		duplicates := 0
		for j, m := range rule.matches {
			if m.key == "" {
				all = i
			}
			earlier, same := seen[m.key]
			for _, p := range prefixes {
				same = same || m.path != "" && p.rest == m.rest && p.rule < i && len(m.path) >= len(p.prefix) && m.path[:len(p.prefix)] == p.prefix
				if same && earlier == 0 {
					earlier = p.rule
				}
			}
			if same && earlier < i {
				duplicates++
				if len(rule.matches) > 1 {
					out.Add(analysis.IneffectiveMatch, r, at(rule.field+".match", j), rule.name, fmt.Sprintf("#%d", j), rules[earlier].name)
				}
				continue
			}
			if _, same := seen[m.key]; !same {
				seen[m.key] = i
			}
			if m.isPrefix {
				prefixes = append(prefixes, struct {
					match
					rule int
				}{m, i})
			}
		}
		if duplicates == len(rule.matches) {
			out.Add(analysis.UnreachableRule, r, rule.field, rule.name, "all matches used by prior rules")
		}
	}
}

func ruleName(name string, i int) string {
	if name != "" {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("#%d", i)
}

func keyOf(m proto.Message) string {
	if proto.Size(m) == 0 {
		return ""
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Sprintf("%p", m)
	}
	return string(data)
}

func httpRules(vs *networkingapi.VirtualService) []rule {
	var out []rule
	for i, h := range vs.GetHttp() {
		next := rule{name: ruleName(h.GetName(), i), field: at("spec.http", i)}
		for _, m := range h.GetMatch() {
			next.matches = append(next.matches, httpMatch(m))
		}
		out = append(out, next)
	}
	return out
}

// httpMatch reads a match. Its name and the prefix of its statistics do not matter, nor does a prefix that all paths have.
func httpMatch(m *networkingapi.HTTPMatchRequest) match {
	m = proto.CloneOf(m)
	m.Name, m.StatPrefix = "", ""
	if m.GetUri().GetPrefix() == "/" {
		m.Uri = nil
	}
	out := match{key: keyOf(m)}
	uri := m.GetUri()
	m.Uri = nil
	out.rest = keyOf(m)
	if m.GetIgnoreUriCase() {
		return out
	}
	switch {
	case uri.GetPrefix() != "":
		out.path, out.prefix, out.isPrefix = uri.GetPrefix(), uri.GetPrefix(), true
	case uri.GetExact() != "":
		out.path = uri.GetExact()
	}
	return out
}

func tlsRules(vs *networkingapi.VirtualService) []rule {
	var out []rule
	for i, t := range vs.GetTls() {
		next := rule{name: ruleName("", i), field: at("spec.tls", i)}
		for _, m := range t.GetMatch() {
			next.matches = append(next.matches, match{key: keyOf(m)})
		}
		out = append(out, next)
	}
	return out
}

func tcpRules(vs *networkingapi.VirtualService) []rule {
	var out []rule
	for i, t := range vs.GetTcp() {
		next := rule{name: ruleName("", i), field: at("spec.tcp", i)}
		for _, m := range t.GetMatch() {
			next.matches = append(next.matches, match{key: keyOf(m)})
		}
		out = append(out, next)
	}
	return out
}
