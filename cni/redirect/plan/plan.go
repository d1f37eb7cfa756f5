// Package plan decides what redirection changes in a pod's network namespace. Plan is pure: it returns inert,
// printable Rules which a back end (cni/redirect/nft) applies, removes and compares with the kernel.
//
// A packet's way, with ztunnel's sockets inside the pod's namespace:
//
//	app → peer      OUTPUT nat: first SYN goes to 15001; ztunnel finds the destination by SO_ORIGINAL_DST
//	app → DNS       OUTPUT nat: port 53 goes to 15053 on loopback
//	peer → app      PREROUTING nat: first SYN goes to 15006, unless it is for 15008 (HBONE) already
//	ztunnel → any   carries OwnMark and is left alone
//	ztunnel → app   may wear the peer's address. PREROUTING sees OwnMark and marks the connection; the app's
//	                answers get the mark on OUTPUT, and the policy route turns them back to ztunnel
//	kubelet → app   is rewritten on the host to a well-known source (cni/redirect/host) and left alone
//	VM → peer       comes in by an interface that the pod names. PREROUTING nat: first SYN goes to 15001
//	VM → DNS        PREROUTING mangle: port 53 is given to 15053 on loopback as it is. Redirecting would give it to the
//	                interface's address, where nobody listens
package plan

import (
	"net/netip"
	"strings"
)

// The numbers every implementation of the ambient redirection shares.
const (
	PortOutbound = 15001
	PortInbound  = 15006
	PortHBONE    = 15008
	PortDNS      = 15053

	portDNSPlain = 53
	// zoneOwnDNS keeps ztunnel's forwarded DNS queries apart from the app's: both may use the same source port
	// one after the other, and the app's entry would turn ztunnel's query back to ztunnel.
	zoneOwnDNS = 1

	rulePriority = 32764
	routeTable   = 100
)

// OwnMark is on every packet of ztunnel's own sockets.
func OwnMark() Mark { return Mark{Value: 0x539, Mask: 0xfff} }

// BeginMark is the own mark of what ztunnel begins: connections to applications above all. The sockets that answer, its listeners' and its name
// server's, may have one bit more.
func BeginMark() Mark { return Mark{Value: 0x539, Mask: 0x1fff} }

// ReturnMark is on connections that ztunnel opened to the app, and on the app's answers.
func ReturnMark() Mark { return Mark{Value: 0x111, Mask: 0xfff} }

// DNSMark is on connections for DNS over TCP that came in by a rerouted interface.
func DNSMark() Mark { return Mark{Value: 0x112, Mask: 0xfff} }

// Config is what holds for all pods of a node.
type Config struct {
	// DNS captures port 53 of pods that do not say otherwise.
	DNS bool
	// IPv6 covers IPv6 too; without it IPv6 traffic of a pod is not captured.
	IPv6 bool
	// ProbeSource and ProbeSourceIPv6 are the addresses that the host gives to kubelet probes.
	ProbeSource, ProbeSourceIPv6 netip.Addr
}

// DefaultConfig captures DNS and both families, and knows the usual probe sources.
func DefaultConfig() Config {
	return Config{
		DNS: true, IPv6: true,
		ProbeSource:     netip.MustParseAddr("169.254.7.127"),
		ProbeSourceIPv6: netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
	}
}

// Choice is a pod's own word on a setting, or its silence.
type Choice uint8

// Inherit takes the node's setting; On and Off overrule it.
const (
	Inherit Choice = iota
	On
	Off
)

// Annotations by which a pod overrules the node's settings.
const (
	AnnotationDNSCapture    = "ambient.istio.io/dns-capture"
	AnnotationBypassInbound = "ambient.istio.io/bypass-inbound-capture"
)

// Pod is what one pod asks for.
type Pod struct {
	DNS Choice
	// BypassInbound leaves incoming plaintext alone (ingress proxies that terminate it themselves).
	BypassInbound bool
	// Reroute names interfaces whose incoming traffic counts as the pod's own, sorted and comma-separated; see Interfaces.
	Reroute string
}

// PodFromAnnotations reads what a pod asks for; values that are no booleans count as silence, and so do names of interfaces that
// Interfaces complains about.
func PodFromAnnotations(annotations map[string]string) Pod {
	var p Pod
	switch annotations[AnnotationDNSCapture] {
	case "true":
		p.DNS = On
	case "false":
		p.DNS = Off
	}
	p.BypassInbound = annotations[AnnotationBypassInbound] == "true"
	names, _ := Interfaces(annotations[AnnotationReroute])
	p.Reroute = strings.Join(names, ",")
	return p
}

// Plan returns the rules for one pod. Equal inputs give equal rules.
func Plan(p Pod, c Config) Rules {
	b := builder{cfg: c, family: FamilyIPv4}
	if c.IPv6 {
		b.family = FamilyAny
	}
	dns := c.DNS && p.DNS != Off || p.DNS == On

	r := Rules{Chains: []Chain{
		{Hook: Prerouting, Kind: Mangle, Rules: b.manglePrerouting(p.Rerouted(), dns)},
		{Hook: Output, Kind: Mangle, Rules: b.mangleOutput()},
		{Hook: Prerouting, Kind: NAT, Rules: b.natPrerouting(p, dns)},
		{Hook: Output, Kind: NAT, Rules: b.natOutput(dns)},
	}}
	if dns {
		r.Chains = append([]Chain{
			{Hook: Prerouting, Kind: Raw, Rules: b.rawPrerouting()},
			{Hook: Output, Kind: Raw, Rules: b.rawOutput()},
		}, r.Chains...)
	}
	r.Routes, r.Capture = b.routes(), b.capture(p, dns)
	r.Sysctls = []Sysctl{{
		Path: "net/ipv4/tcp_migrate_req", Value: "1", Optional: true,
		Why: "queued connections move to the next ztunnel when a listener closes",
	}}
	return r
}

// builder carries what all chains of one plan share.
type builder struct {
	cfg    Config
	family Family // of rules without addresses
}

func (b builder) rawPrerouting() []Rule {
	return []Rule{{
		Match:  Match{Family: b.family, Proto: ProtoUDP, SourcePort: portDNSPlain, NotLoopback: true},
		Action: Action{Verb: SetZone, Zone: zoneOwnDNS},
		Why:    "answers to ztunnel's own DNS queries",
	}}
}

func (b builder) rawOutput() []Rule {
	return []Rule{{
		Match:  Match{Family: b.family, Proto: ProtoUDP, DestPort: portDNSPlain, NotLoopback: true, Mark: OwnMark()},
		Action: Action{Verb: SetZone, Zone: zoneOwnDNS},
		Why:    "ztunnel's own DNS queries, apart from the app's",
	}}
}

func (b builder) manglePrerouting(rerouted []string, dns bool) []Rule {
	rules := []Rule{{
		Match:  Match{Family: b.family, Mark: OwnMark()},
		Action: Action{Verb: SetConnMark, Mark: ReturnMark()},
		Why:    "connections from ztunnel to the app",
	}}
	if !dns {
		return rules
	}
	for _, name := range rerouted {
		rules = append(rules, b.divertDNS(name)...)
	}
	return rules
}

// divertDNS gives the questions that come in by an interface to the proxy. All packets of a connection must be given to it, but those
// of connections that are older than the rules must not.
func (b builder) divertDNS(name string) []Rule {
	rules := []Rule{{
		Match:  Match{Family: b.family, Interface: name, Proto: ProtoTCP, Syn: true, DestPort: portDNSPlain},
		Action: Action{Verb: SetConnMark, Mark: DNSMark()},
		Why:    "DNS over TCP of a virtual interface",
	}}
	to := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if b.cfg.IPv6 {
		to = append(to, netip.IPv6Loopback())
	}
	for _, addr := range to {
		family := FamilyIPv4
		if addr.Is6() {
			family = FamilyIPv6
		}
		divert := Action{Verb: Divert, Addr: addr, Port: PortDNS, Mark: ReturnMark()}
		rules = append(rules,
			Rule{
				Match:  Match{Family: family, Interface: name, Proto: ProtoUDP, DestPort: portDNSPlain},
				Action: divert, Why: "DNS over UDP of a virtual interface",
			},
			Rule{
				Match:  Match{Family: family, Interface: name, Proto: ProtoTCP, DestPort: portDNSPlain, ConnMark: DNSMark()},
				Action: divert, Why: "DNS over TCP of a virtual interface",
			})
	}
	return rules
}

func (b builder) mangleOutput() []Rule {
	return []Rule{{
		Match:  Match{Family: b.family, ConnMark: ReturnMark()},
		Action: Action{Verb: RestoreMark},
		Why:    "the app's answers go back to ztunnel",
	}}
}

// natPrerouting sees the first packet of connections that reach the pod.
func (b builder) natPrerouting(p Pod, dns bool) []Rule {
	rules := b.reroute(p.Rerouted(), dns)
	probe := func(f Family, source netip.Addr) {
		if source.IsValid() {
			rules = append(rules, Rule{
				Match:  Match{Family: f, Proto: ProtoTCP, Source: source},
				Action: Action{Verb: Accept},
				Why:    "kubelet probes",
			})
		}
	}
	if p.BypassInbound {
		return rules
	}
	probe(FamilyIPv4, b.cfg.ProbeSource)
	if b.cfg.IPv6 {
		probe(FamilyIPv6, b.cfg.ProbeSourceIPv6)
	}
	return append(rules, Rule{
		Match: Match{
			Family: b.family, Proto: ProtoTCP, Syn: true, NotLoopback: true,
			NotDestPort: PortHBONE, NotMark: OwnMark(),
		},
		Action: Action{Verb: Redirect, Port: PortInbound},
		Why:    "new inbound connections",
	})
}

// reroute takes new connections that come in by the interfaces for outbound ones.
func (b builder) reroute(interfaces []string, dns bool) []Rule {
	var rules []Rule
	for _, name := range interfaces {
		match := Match{Family: b.family, Interface: name, Proto: ProtoTCP, Syn: true}
		if dns {
			diverted := match
			diverted.DestPort = portDNSPlain
			rules = append(rules, Rule{Match: diverted, Action: Action{Verb: Accept}, Why: "DNS over TCP of a virtual interface"})
		}
		rules = append(rules, Rule{
			Match: match, Action: Action{Verb: Redirect, Port: PortOutbound}, Why: "new connections of a virtual interface",
		})
	}
	return rules
}

// natOutput sees the first packet of connections that start in the pod.
func (b builder) natOutput(dns bool) []Rule {
	rules := []Rule{
		{
			Match: Match{Family: b.family, Mark: OwnMark()}, Action: Action{Verb: Accept},
			Why: "ztunnel's own connections",
		},
		{
			Match: Match{Family: b.family, Loopback: true}, Action: Action{Verb: Accept},
			Why: "the pod talking to itself",
		},
	}
	if dns {
		rules = append(rules,
			Rule{
				Match:  Match{Family: b.family, Proto: ProtoUDP, DestPort: portDNSPlain},
				Action: Action{Verb: Redirect, Port: PortDNS}, Why: "DNS over UDP",
			},
			Rule{
				Match:  Match{Family: b.family, Proto: ProtoTCP, Syn: true, DestPort: portDNSPlain},
				Action: Action{Verb: Redirect, Port: PortDNS}, Why: "DNS over TCP",
			})
	}
	return append(rules, Rule{
		Match: Match{Family: b.family, Proto: ProtoTCP, Syn: true}, Action: Action{Verb: Redirect, Port: PortOutbound},
		Why: "new outbound connections",
	})
}

// capture is the chains' meaning.
func (b builder) capture(p Pod, dns bool) Capture {
	c := Capture{Outbound: true, Inbound: !p.BypassInbound, DNS: dns, IPv6: b.cfg.IPv6, Reroute: p.Reroute}
	if b.cfg.ProbeSource.IsValid() {
		c.Probes = append(c.Probes, b.cfg.ProbeSource)
	}
	if b.cfg.IPv6 && b.cfg.ProbeSourceIPv6.IsValid() {
		c.Probes = append(c.Probes, b.cfg.ProbeSourceIPv6)
	}
	return c
}

func (b builder) routes() []PolicyRoute {
	routes := []PolicyRoute{{Family: FamilyIPv4, Mark: ReturnMark(), Priority: rulePriority, Table: routeTable}}
	if b.cfg.IPv6 {
		routes = append(routes, PolicyRoute{
			Family: FamilyIPv6, Mark: ReturnMark(), Priority: rulePriority, Table: routeTable,
		})
	}
	return routes
}
