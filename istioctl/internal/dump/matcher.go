package dump

import (
	"maps"
	"slices"
	"strings"
)

// matchesByChain walks a matcher of filter chains, and returns for each chain's name what leads to it.
func matchesByChain(matcher tree) map[string][]string {
	out := map[string][]string{}
	walkMatcher(matcher, nil, out)
	return out
}

func walkMatcher(m tree, path []string, out map[string][]string) {
	if m == nil {
		return
	}
	input := inputName(at(m, "matcherTree", "input"))
	for _, form := range []string{"exactMatchMap", "prefixMatchMap"} {
		branches := object(m, "matcherTree", form, "map")
		for _, key := range slices.Sorted(maps.Keys(branches)) {
			walkMatch(branches[key], branch(path, input+"="+quoted(input, key)), out)
		}
	}
	for _, r := range list(m, "matcherTree", "customMatch", "typedConfig", "rangeMatchers") {
		var ranges []any
		for _, p := range list(r, "ranges") {
			ranges = append(ranges, prefix(p))
		}
		walkMatch(at(r, "onMatch"), branch(path, input+"="+joined(ranges)), out)
	}
	for _, one := range list(m, "matcherList", "matchers") {
		walkMatch(at(one, "onMatch"), branch(path, predicate(at(one, "predicate"))), out)
	}
	// A tree in which nothing matches goes on here.
	if otherwise := at(m, "onNoMatch"); otherwise != nil {
		if len(path) > 0 || at(m, "matcherTree") != nil {
			path = branch(path, "ANY")
		}
		walkMatch(otherwise, path, out)
	}
}

func walkMatch(on tree, path []string, out map[string][]string) {
	if next := at(on, "matcher"); next != nil {
		walkMatcher(next, path, out)
		return
	}
	name := text(on, "action", "typedConfig", "value")
	if name == "" {
		name = text(on, "action", "name")
	}
	if name == "" {
		return
	}
	match := strings.Join(path, " -> ")
	if match == "" {
		match = "ALL"
	}
	out[name] = append(out[name], match)
}

func branch(path []string, step string) []string { return append(slices.Clone(path), step) }

// inputName is what is looked at.
func inputName(input tree) string {
	switch kindOf(at(input, "typedConfig")) {
	case "DestinationIPInput":
		return "ip"
	case "DestinationPortInput":
		return "port"
	case "ApplicationProtocolInput":
		return "application-protocol"
	case "TransportProtocolInput":
		return "transport-protocol"
	case "ServerNameInput":
		return "sni"
	case "SourceIPInput":
		return "source-ip"
	case "SourcePortInput":
		return "source-port"
	}
	return text(input, "name")
}

// quoted writes protocols as Envoy wants them configured, in quotes.
func quoted(input, key string) string {
	if strings.HasSuffix(input, "-protocol") && !strings.HasPrefix(key, "'") {
		return "'" + key + "'"
	}
	return key
}

func predicate(p tree) string {
	if single := at(p, "singlePredicate"); single != nil {
		input := inputName(at(single, "input"))
		for _, form := range []string{"exact", "prefix", "suffix", "contains"} {
			if v := text(single, "valueMatch", form); v != "" {
				return input + "=" + quoted(input, v)
			}
		}
		return input
	}
	for _, form := range []struct{ field, word string }{{"andMatcher", " and "}, {"orMatcher", " or "}} {
		var parts []string
		for _, sub := range list(p, form.field, "predicate") {
			parts = append(parts, predicate(sub))
		}
		if len(parts) > 0 {
			return strings.Join(parts, form.word)
		}
	}
	if sub := at(p, "notMatcher"); sub != nil {
		return "not " + predicate(sub)
	}
	return "ANY"
}
