package envoy

import (
	"net/netip"
	"slices"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	matcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	inputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// addressTree leads from a destination address to a chain: by address, then by port, then by what the connection begins with.
type addressTree struct {
	order []netip.Addr
	at    map[netip.Addr]*addressNode
}

type addressNode struct {
	ports map[string]*matcher.Matcher_OnMatch
	any   *matcher.Matcher_OnMatch // a workload, on every port
}

func newAddressTree() *addressTree { return &addressTree{at: map[netip.Addr]*addressNode{}} }

func (t *addressTree) node(a netip.Addr) *addressNode {
	n := t.at[a]
	if n == nil {
		n = &addressNode{ports: map[string]*matcher.Matcher_OnMatch{}}
		t.at[a] = n
		t.order = append(t.order, a)
	}
	return n
}

func (t *addressTree) service(s WaypointService) {
	for _, a := range s.Addresses {
		on := chain(chainName(s, "http"))
		switch s.Protocol {
		case TCP, TLS:
			on = chain(chainName(s, "tcp"))
		case Unknown:
			on = byProtocol(chainName(s, "http"), chainName(s, "tcp"))
		case HTTP, HTTP2:
		}
		t.node(a).ports[number(s.Port)] = on
	}
}

func (t *addressTree) workload(w WaypointWorkload) {
	for _, a := range w.Addresses {
		t.node(a).any = byProtocol(directHTTP+w.Chain, directTCP+w.Chain)
	}
}

func extension(name string, m proto.Message) *xdscore.TypedExtensionConfig {
	return &xdscore.TypedExtensionConfig{Name: name, TypedConfig: pack(m)}
}

func chain(name string) *matcher.Matcher_OnMatch {
	return &matcher.Matcher_OnMatch{OnMatch: &matcher.Matcher_OnMatch_Action{Action: extension(name, wrapperspb.String(name))}}
}

func nested(m *matcher.Matcher) *matcher.Matcher_OnMatch {
	return &matcher.Matcher_OnMatch{OnMatch: &matcher.Matcher_OnMatch_Matcher{Matcher: m}}
}

func exactly(input *xdscore.TypedExtensionConfig, values map[string]*matcher.Matcher_OnMatch, otherwise *matcher.Matcher_OnMatch) *matcher.Matcher {
	return &matcher.Matcher{
		MatcherType: &matcher.Matcher_MatcherTree_{MatcherTree: &matcher.Matcher_MatcherTree{
			Input:    input,
			TreeType: &matcher.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: &matcher.Matcher_MatcherTree_MatchMap{Map: values}},
		}},
		OnNoMatch: otherwise,
	}
}

func byProtocol(http, tcp string) *matcher.Matcher_OnMatch {
	return nested(exactly(extension("application-protocol", &inputsv3.ApplicationProtocolInput{}),
		map[string]*matcher.Matcher_OnMatch{"'http/1.1'": chain(http), "'h2c'": chain(http)}, chain(tcp)))
}

// matcher is nil when there is no address.
func (t *addressTree) matcher() *matcher.Matcher {
	if len(t.order) == 0 {
		return nil
	}
	slices.SortFunc(t.order, netip.Addr.Compare)
	ranges := &matcher.IPMatcher{}
	for _, a := range t.order {
		n := t.at[a]
		on := n.any
		if len(n.ports) > 0 {
			on = nested(exactly(extension("port", &inputsv3.DestinationPortInput{}), n.ports, n.any))
		}
		ranges.RangeMatchers = append(ranges.RangeMatchers, &matcher.IPMatcher_IPRangeMatcher{
			Ranges:  []*xdscore.CidrRange{{AddressPrefix: a.String(), PrefixLen: wrapperspb.UInt32(uint32(a.BitLen()))}},
			OnMatch: on,
		})
	}
	return &matcher.Matcher{MatcherType: &matcher.Matcher_MatcherTree_{MatcherTree: &matcher.Matcher_MatcherTree{
		Input:    extension("ip", &inputsv3.DestinationIPInput{}),
		TreeType: &matcher.Matcher_MatcherTree_CustomMatch{CustomMatch: extension("ip", ranges)},
	}}}
}
