package l7

import (
	"net/netip"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// chainMatch chooses a chain: by the tree of filter_chain_matcher, or by the matches of the chains.
type chainMatch struct {
	tree   *treeNode
	chains []chainCriteria
}

// chainCriteria is one chain and its filter_chain_match; empty lists match anything.
type chainCriteria struct {
	chain                 *Chain
	port                  uint16
	destinations, sources []netip.Prefix
	directSources         []netip.Prefix
	serverNames           []string
	transport             string
	protocols             []string
}

func (m *chainMatch) find(conn *Conn, sniffed Protocol) *Chain {
	if m.tree != nil {
		return m.tree.find(conn, sniffed)
	}
	left := make([]*chainCriteria, 0, len(m.chains))
	for i := range m.chains {
		left = append(left, &m.chains[i])
	}
	// Each criterion, in Envoy's order, leaves the chains that match it best: what is more specific shuts out the rest, for good.
	left = best(left, func(c *chainCriteria) int { return scorePort(c, conn) })
	left = best(left, func(c *chainCriteria) int { return scorePrefix(c.destinations, conn.Destination.Addr()) })
	left = best(left, func(c *chainCriteria) int { return scoreName(c.serverNames, conn.SNI) })
	left = best(left, func(c *chainCriteria) int { return scoreTransport(c.transport, conn) })
	left = best(left, func(c *chainCriteria) int { return scoreProtocol(c.protocols, conn, sniffed) })
	left = best(left, func(c *chainCriteria) int { return scorePrefix(c.directSources, conn.Direct().Addr()) })
	left = best(left, func(c *chainCriteria) int { return scorePrefix(c.sources, conn.Source.Addr()) })
	if len(left) == 0 {
		return nil
	}
	return left[0].chain
}

// dependsOnProtocol is whether what is sniffed can change what find answers.
func (m *chainMatch) dependsOnProtocol(conn *Conn) bool {
	if m.tree != nil {
		return m.tree.dependsOnProtocol(conn)
	}
	for i := range m.chains {
		if len(m.chains[i].protocols) > 0 {
			return true
		}
	}
	return false
}

// best keeps those with the highest score; a negative one is no match.
func best(cs []*chainCriteria, score func(*chainCriteria) int) []*chainCriteria {
	top := 0
	kept := cs[:0]
	for _, c := range cs {
		switch s := score(c); {
		case s < 0 || s < top:
		case s > top:
			top = s
			kept = append(kept[:0], c)
		default:
			kept = append(kept, c)
		}
	}
	return kept
}

func scorePort(c *chainCriteria, conn *Conn) int {
	switch c.port {
	case 0:
		return 0
	case conn.Destination.Port():
		return 1
	}
	return -1
}

func scorePrefix(ps []netip.Prefix, a netip.Addr) int {
	if len(ps) == 0 {
		return 0
	}
	top := -1
	for _, p := range ps {
		if p.Contains(a.Unmap()) {
			top = max(top, p.Bits()+1)
		}
	}
	return top
}

// scoreName prefers the exact name, then the longest *.suffix.
func scoreName(names []string, sni string) int {
	if len(names) == 0 {
		return 0
	}
	sni = strings.ToLower(sni)
	top := -1
	for _, n := range names {
		if suffix, ok := strings.CutPrefix(n, "*"); ok {
			if len(sni) > len(suffix) && strings.HasSuffix(sni, suffix) {
				top = max(top, len(suffix))
			}
		} else if n == sni && sni != "" {
			return 1 << 16
		}
	}
	return top
}

func scoreTransport(want string, conn *Conn) int {
	if want == "" {
		return 0
	}
	have := "raw_buffer"
	if conn.SNI != "" || conn.ALPN != "" || conn.TLS || conn.Hello {
		have = "tls"
	}
	if want == have {
		return 1
	}
	return -1
}

func scoreProtocol(want []string, conn *Conn, sniffed Protocol) int {
	if len(want) == 0 {
		return 0
	}
	for _, w := range want {
		if conn.ALPN != "" && w == conn.ALPN {
			return 1
		}
		if sniffed == ProtocolHTTP1 && w == "http/1.1" || sniffed == ProtocolHTTP10 && w == "http/1.0" || sniffed == ProtocolHTTP2 && w == "h2c" {
			return 1
		}
	}
	return -1
}

func compileMatches(ps []*listenerv3.FilterChain, chains []*Chain) (chainMatch, error) {
	var m chainMatch
	for i, p := range ps {
		c, err := compileCriteria(p.GetFilterChainMatch())
		if err != nil {
			return m, strict.AtIndex(strict.At(err, "filter_chain_match"), "filter_chains", i)
		}
		c.chain = chains[i]
		m.chains = append(m.chains, c)
	}
	return m, nil
}

func compileCriteria(p *listenerv3.FilterChainMatch) (chainCriteria, error) {
	c := chainCriteria{
		port:      uint16(p.GetDestinationPort().GetValue()), //nolint:gosec // a port
		transport: p.GetTransportProtocol(), protocols: p.GetApplicationProtocols(),
	}
	for _, n := range p.GetServerNames() {
		c.serverNames = append(c.serverNames, strings.ToLower(n))
	}
	for i, r := range p.GetPrefixRanges() {
		pre, err := prefixOf(r)
		if err != nil {
			return c, strict.AtIndex(err, "prefix_ranges", i)
		}
		c.destinations = append(c.destinations, pre)
	}
	for i, r := range p.GetSourcePrefixRanges() {
		pre, err := prefixOf(r)
		if err != nil {
			return c, strict.AtIndex(err, "source_prefix_ranges", i)
		}
		c.sources = append(c.sources, pre)
	}
	for i, r := range p.GetDirectSourcePrefixRanges() {
		pre, err := prefixOf(r)
		if err != nil {
			return c, strict.AtIndex(err, "direct_source_prefix_ranges", i)
		}
		c.directSources = append(c.directSources, pre)
	}
	return c, nil
}
