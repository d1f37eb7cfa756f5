package envoy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	matcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	inputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// addressTree leads from a destination address to a chain: by address, then by port, then by what the connection begins with.
type addressTree struct {
	http10 bool // is HTTP
	order  []netip.Addr
	at     map[netip.Addr]*addressNode
}

type addressNode struct {
	ports map[string]*matcher.Matcher_OnMatch
	any   *matcher.Matcher_OnMatch // a workload, on every port
}

func newAddressTree(http10 bool) *addressTree {
	return &addressTree{http10: http10, at: map[netip.Addr]*addressNode{}}
}

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
			on = byServerName(s, a, chain(s.tcpChainAt(a)))
		case Unknown:
			on = byServerName(s, a, t.byProtocol(chainName(s, "http"), s.tcpChainAt(a)))
		case HTTP, HTTP2:
		}
		t.node(a).ports[number(s.Port)] = on
	}
}

func (t *addressTree) workload(w WaypointWorkload) {
	for _, a := range w.Addresses {
		t.node(a).any = t.byProtocol(directHTTP+w.Chain, directTCP+w.Chain)
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

func (t *addressTree) byProtocol(http, tcp string) *matcher.Matcher_OnMatch {
	protocols := map[string]*matcher.Matcher_OnMatch{"'http/1.1'": chain(http), "'h2c'": chain(http)}
	if t.http10 {
		protocols["'http/1.0'"] = chain(http)
	}
	return nested(exactly(extension("application-protocol", &inputsv3.ApplicationProtocolInput{}), protocols, chain(tcp)))
}

// byServerName leads TLS connections to the chains of their server names: the exact one, else the longest wildcard. Of routes with the
// same name the first one holds.
func byServerName(s WaypointService, at netip.Addr, otherwise *matcher.Matcher_OnMatch) *matcher.Matcher_OnMatch {
	exact := map[string]*matcher.Matcher_OnMatch{}
	var wild []string
	chains := map[string]string{}
	for i, r := range s.TCP {
		if len(r.SNI) == 0 || !r.LeadsTo(at) {
			continue
		}
		for _, name := range r.SNI {
			name = strings.ToLower(name)
			if chains[name] != "" {
				continue
			}
			chains[name] = s.tcpChain(i)
			if suffix, ok := strings.CutPrefix(name, "*"); ok {
				wild = append(wild, suffix)
			} else {
				exact[name] = chain(chains[name])
			}
		}
	}
	if len(chains) == 0 {
		return otherwise
	}
	input := extension("server-name", &inputsv3.ServerNameInput{})
	names := chain(s.tcpChainAt(at)) // whatever is offered inside of TLS, it is not HTTP that can be seen here
	if len(wild) > 0 {
		slices.SortFunc(wild, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
		list := &matcher.Matcher_MatcherList{}
		for _, suffix := range wild {
			list.Matchers = append(list.Matchers, &matcher.Matcher_MatcherList_FieldMatcher{
				Predicate: &matcher.Matcher_MatcherList_Predicate{MatchType: &matcher.Matcher_MatcherList_Predicate_SinglePredicate_{
					SinglePredicate: &matcher.Matcher_MatcherList_Predicate_SinglePredicate{
						Input: input,
						Matcher: &matcher.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: &matcher.StringMatcher{
							MatchPattern: &matcher.StringMatcher_Suffix{Suffix: suffix},
						}},
					},
				}},
				OnMatch: chain(chains["*"+suffix]),
			})
		}
		names = nested(&matcher.Matcher{MatcherType: &matcher.Matcher_MatcherList_{MatcherList: list}, OnNoMatch: names})
	}
	if len(exact) > 0 {
		names = nested(exactly(input, exact, names))
	}
	return nested(exactly(extension("transport-protocol", &inputsv3.TransportProtocolInput{}),
		map[string]*matcher.Matcher_OnMatch{"tls": names}, otherwise))
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
