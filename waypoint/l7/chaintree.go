package l7

import (
	"net/netip"
	"strconv"
	"strings"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	netinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// treeInput is what a node of the tree looks at.
type treeInput uint8

const (
	inputNone treeInput = iota
	inputDestinationIP
	inputDestinationPort
	inputSourceIP
	inputDirectIP
	inputServerName
	inputTransport
	inputProtocol
)

// treeNode is a node of a filter_chain_matcher: a leaf with a chain, or a choice.
type treeNode struct {
	chain *Chain // of a leaf
	input treeInput
	// exact is by the value; ports likewise by number; ips by address, in one table per prefix length, the longest first.
	exact map[string]*treeNode
	ports map[uint16]*treeNode
	ips   []ipTable
	// suffixes are looked at in their order, instead of exact; only of server names.
	suffixes []suffixNode
	other    *treeNode // on_no_match; nil is no chain
}

// suffixNode is for names with that end, or for exactly that name.
type suffixNode struct {
	text  string
	exact bool
	node  *treeNode
}

type ipTable struct {
	bits  int
	six   bool
	nodes map[netip.Addr]*treeNode
}

// find walks the tree. A branch without a result falls back to the shorter prefix and then to on_no_match, as Envoy's trie and
// maps do.
func (n *treeNode) find(conn *Conn, sniffed Protocol) *Chain {
	if n == nil {
		return nil
	}
	if n.chain != nil {
		return n.chain
	}
	switch n.input {
	case inputDestinationIP:
		return n.findIP(conn.Destination.Addr().Unmap(), conn, sniffed)
	case inputSourceIP:
		return n.findIP(conn.Source.Addr().Unmap(), conn, sniffed)
	case inputDirectIP:
		return n.findIP(conn.Direct().Addr().Unmap(), conn, sniffed)
	case inputDestinationPort:
		return n.finish(n.ports[conn.Destination.Port()], conn, sniffed)
	case inputServerName:
		return n.finish(n.byName(conn.SNI), conn, sniffed)
	case inputTransport:
		key := "raw_buffer"
		if scoreTransport("tls", conn) > 0 {
			key = "tls"
		}
		return n.finish(n.exact[key], conn, sniffed)
	case inputProtocol:
		return n.finish(n.byProtocol(conn, sniffed), conn, sniffed)
	}
	return n.other.find(conn, sniffed)
}

func (n *treeNode) finish(child *treeNode, conn *Conn, sniffed Protocol) *Chain {
	if child != nil {
		if ch := child.find(conn, sniffed); ch != nil {
			return ch
		}
	}
	return n.other.find(conn, sniffed)
}

// byName finds the node of a server name.
func (n *treeNode) byName(name string) *treeNode {
	name = strings.ToLower(name)
	for i := range n.suffixes {
		if s := &n.suffixes[i]; s.exact && s.text == name || !s.exact && strings.HasSuffix(name, s.text) {
			return s.node
		}
	}
	return n.exact[name]
}

func (n *treeNode) findIP(a netip.Addr, conn *Conn, sniffed Protocol) *Chain {
	for i := range n.ips {
		if child := n.ips[i].lookup(a); child != nil {
			if ch := child.find(conn, sniffed); ch != nil {
				return ch
			}
		}
	}
	return n.other.find(conn, sniffed)
}

func (t *ipTable) lookup(a netip.Addr) *treeNode {
	if !a.IsValid() || a.Is6() != t.six {
		return nil
	}
	p, err := a.Prefix(t.bits)
	if err != nil {
		return nil
	}
	return t.nodes[p.Addr()]
}

// byProtocol looks up the application protocols in the form of Envoy's input: 'h2c'.
func (n *treeNode) byProtocol(conn *Conn, sniffed Protocol) *treeNode {
	key := ""
	switch {
	case conn.ALPN != "":
		key = "'" + conn.ALPN + "'"
	case sniffed == ProtocolHTTP1:
		key = "'http/1.1'"
	case sniffed == ProtocolHTTP10:
		key = "'http/1.0'"
	case sniffed == ProtocolHTTP2:
		key = "'h2c'"
	}
	return n.exact[key]
}

// dependsOnProtocol is whether a walk for the connection can reach a node that looks at the application protocol.
func (n *treeNode) dependsOnProtocol(conn *Conn) bool {
	if n == nil || n.chain != nil {
		return false
	}
	var tables []*treeNode
	switch n.input {
	case inputProtocol:
		return true
	case inputDestinationIP, inputSourceIP, inputDirectIP:
		a := conn.Destination.Addr().Unmap()
		switch n.input { //nolint:exhaustive // the others are no addresses
		case inputSourceIP:
			a = conn.Source.Addr().Unmap()
		case inputDirectIP:
			a = conn.Direct().Addr().Unmap()
		}
		for i := range n.ips {
			tables = append(tables, n.ips[i].lookup(a))
		}
	case inputDestinationPort:
		tables = append(tables, n.ports[conn.Destination.Port()])
	default:
		for _, c := range n.exact {
			tables = append(tables, c)
		}
	}
	for _, c := range tables {
		if c.dependsOnProtocol(conn) {
			return true
		}
		if c != nil && c.find(conn, ProtocolUnknown) != nil {
			return false // found without looking at the bytes
		}
	}
	return n.other.dependsOnProtocol(conn)
}

// treeCompiler knows the chains by name.
type treeCompiler map[string]*Chain

func compileTree(p *xdsmatcher.Matcher, chains []*Chain) (chainMatch, error) {
	t := treeCompiler{}
	for _, c := range chains {
		t[c.Name] = c
	}
	n, err := t.node(p)
	return chainMatch{tree: n}, err
}

func (t treeCompiler) node(p *xdsmatcher.Matcher) (*treeNode, error) {
	n := &treeNode{}
	if list := p.GetMatcherList(); list != nil {
		n.input = inputServerName
		for i, m := range list.GetMatchers() {
			if err := t.field(n, m); err != nil {
				return nil, strict.At(strict.AtIndex(err, "matchers", i), "matcher_list")
			}
		}
	}
	if tree := p.GetMatcherTree(); tree != nil {
		if err := t.tree(n, tree); err != nil {
			return nil, strict.At(err, "matcher_tree")
		}
	}
	var err error
	if o := p.GetOnNoMatch(); o != nil {
		n.other, err = t.onMatch(o)
	}
	return n, strict.At(err, "on_no_match")
}

// field compiles an entry of a list: the server name's end, or all of it.
func (t treeCompiler) field(n *treeNode, p *xdsmatcher.Matcher_MatcherList_FieldMatcher) error {
	single := p.GetPredicate().GetSinglePredicate()
	input, err := compileInput(single.GetInput())
	if err == nil && input != inputServerName {
		err = strict.Errorf("", "only server names are looked for in lists")
	}
	if err != nil {
		return strict.At(err, "predicate.single_predicate.input.typed_config")
	}
	s := suffixNode{text: strings.ToLower(single.GetValueMatch().GetSuffix())}
	if s.text == "" {
		s.text, s.exact = strings.ToLower(single.GetValueMatch().GetExact()), true
	}
	if s.text == "" {
		return strict.Errorf("predicate.single_predicate.value_match", "must be a suffix or exact")
	}
	s.node, err = t.onMatch(p.GetOnMatch())
	n.suffixes = append(n.suffixes, s)
	return strict.At(err, "on_match")
}

func (t treeCompiler) onMatch(p *xdsmatcher.Matcher_OnMatch) (*treeNode, error) {
	if m := p.GetMatcher(); m != nil {
		n, err := t.node(m)
		return n, strict.At(err, "matcher")
	}
	name, err := unpack[*wrapperspb.StringValue](p.GetAction().GetTypedConfig())
	if err != nil {
		return nil, strict.At(err, "action.typed_config")
	}
	ch := t[name.GetValue()]
	if ch == nil {
		return nil, strict.Errorf("action.typed_config", "no filter chain is named %q", name.GetValue())
	}
	return &treeNode{chain: ch}, nil
}

func (t treeCompiler) tree(n *treeNode, p *xdsmatcher.Matcher_MatcherTree) error {
	input, err := compileInput(p.GetInput())
	if err != nil {
		return strict.At(err, "input.typed_config")
	}
	n.input = input
	if c := p.GetCustomMatch(); c != nil {
		m, err := unpack[*xdsmatcher.IPMatcher](c.GetTypedConfig())
		if err == nil && input != inputDestinationIP && input != inputSourceIP && input != inputDirectIP {
			err = strict.Errorf("", "an IP matcher needs an address")
		}
		if err == nil {
			err = t.ips(n, m)
		}
		return strict.At(err, "custom_match.typed_config")
	}
	n.exact, n.ports = map[string]*treeNode{}, map[uint16]*treeNode{}
	for key, o := range p.GetExactMatchMap().GetMap() {
		child, err := t.onMatch(o)
		if err != nil {
			return strict.At(strict.AtKey(err, "map", key), "exact_match_map")
		}
		switch input {
		case inputDestinationPort:
			port, err := strconv.ParseUint(key, 10, 16)
			if err != nil {
				return strict.At(strict.AtKey(strict.Errorf("", "is no port"), "map", key), "exact_match_map")
			}
			n.ports[uint16(port)] = child
		case inputDestinationIP, inputSourceIP, inputDirectIP:
			a, err := netip.ParseAddr(key)
			if err != nil {
				return strict.At(strict.AtKey(strict.Errorf("", "is no address"), "map", key), "exact_match_map")
			}
			n.addIP(netip.PrefixFrom(a, a.BitLen()), child)
		default:
			n.exact[key] = child
		}
	}
	return nil
}

func compileInput(p *xdscore.TypedExtensionConfig) (treeInput, error) {
	m, err := strict.Unpack(p.GetTypedConfig())
	if err != nil {
		return inputNone, err
	}
	switch m.(type) {
	case *netinputsv3.DestinationIPInput:
		return inputDestinationIP, nil
	case *netinputsv3.DestinationPortInput:
		return inputDestinationPort, nil
	case *netinputsv3.SourceIPInput:
		return inputSourceIP, nil
	case *netinputsv3.DirectSourceIPInput:
		return inputDirectIP, nil
	case *netinputsv3.ServerNameInput:
		return inputServerName, nil
	case *netinputsv3.TransportProtocolInput:
		return inputTransport, nil
	case *netinputsv3.ApplicationProtocolInput:
		return inputProtocol, nil
	}
	return inputNone, strict.Errorf("", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
}

func (t treeCompiler) ips(n *treeNode, p *xdsmatcher.IPMatcher) error {
	for i, r := range p.GetRangeMatchers() {
		child, err := t.onMatch(r.GetOnMatch())
		if err != nil {
			return strict.AtIndex(strict.At(err, "on_match"), "range_matchers", i)
		}
		for j, c := range r.GetRanges() {
			pre, err := parsePrefix(c.GetAddressPrefix(), c.GetPrefixLen().GetValue())
			if err != nil {
				return strict.AtIndex(strict.AtIndex(err, "ranges", j), "range_matchers", i)
			}
			n.addIP(pre, child)
		}
	}
	return nil
}

// addIP keeps the tables ordered, the longest prefix first. Of two equal prefixes the first one holds.
func (n *treeNode) addIP(p netip.Prefix, child *treeNode) {
	at := 0
	for ; at < len(n.ips) && n.ips[at].bits >= p.Bits(); at++ {
		if n.ips[at].bits == p.Bits() && n.ips[at].six == p.Addr().Is6() {
			if _, dup := n.ips[at].nodes[p.Addr()]; !dup {
				n.ips[at].nodes[p.Addr()] = child
			}
			return
		}
	}
	n.ips = append(n.ips, ipTable{})
	copy(n.ips[at+1:], n.ips[at:])
	n.ips[at] = ipTable{bits: p.Bits(), six: p.Addr().Is6(), nodes: map[netip.Addr]*treeNode{p.Addr(): child}}
}
