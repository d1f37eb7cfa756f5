package match

import (
	"net/netip"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// State is a compiled FilterStateMatcher.
type State struct {
	key      string
	text     String
	prefixes []netip.Prefix // of an address_match
	address  bool
	invert   bool
}

// CompileState compiles a FilterStateMatcher.
func CompileState(p *matcherv3.FilterStateMatcher) (State, error) {
	m := State{key: p.GetKey()}
	var err error
	switch k := p.GetMatcher().(type) {
	case *matcherv3.FilterStateMatcher_StringMatch:
		m.text, err = CompileString(k.StringMatch)
		return m, strict.At(err, "string_match")
	case *matcherv3.FilterStateMatcher_AddressMatch:
		m.address, m.invert = true, k.AddressMatch.GetInvertMatch()
		for i, r := range k.AddressMatch.GetRanges() {
			a, err := netip.ParseAddr(r.GetAddressPrefix())
			if err != nil {
				return m, strict.At(strict.AtIndex(strict.Errorf("address_prefix", "%v", err), "ranges", i), "address_match")
			}
			pre, err := a.Prefix(int(r.GetPrefixLen().GetValue()))
			if err != nil {
				return m, strict.At(strict.AtIndex(strict.Errorf("prefix_len", "%v", err), "ranges", i), "address_match")
			}
			m.prefixes = append(m.prefixes, pre)
		}
		return m, nil
	}
	return m, strict.Errorf("matcher", "is required")
}

// Match is whether the object is there and matches.
func (m *State) Match(i *exchange.Info) bool {
	if !m.address {
		v, ok := i.State(m.key)
		return ok && m.text.Match(v)
	}
	a, ok := m.addr(i)
	if !ok {
		return false
	}
	for _, p := range m.prefixes {
		if p.Contains(a) {
			return !m.invert
		}
	}
	return m.invert
}

// addr reads the object as an address, with or without a port.
func (m *State) addr(i *exchange.Info) (netip.Addr, bool) {
	if m.key == exchange.OriginalRemote && i.Conn.Authority != "" {
		return i.Conn.Source.Addr().Unmap(), i.Conn.Source.IsValid()
	}
	v, ok := i.State(m.key)
	if !ok {
		return netip.Addr{}, false
	}
	if ap, err := netip.ParseAddrPort(v); err == nil {
		return ap.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(v)
	return a.Unmap(), err == nil
}
