package plan

import (
	"net/netip"
)

// Family restricts a rule or a route to one address family.
type Family uint8

// The families of a rule; FamilyAny matches IPv4 and IPv6 alike.
const (
	FamilyAny Family = iota
	FamilyIPv4
	FamilyIPv6
)

// Proto restricts a rule to one transport protocol.
type Proto uint8

// The transport protocols a rule may match; ProtoAny matches every packet.
const (
	ProtoAny Proto = iota
	ProtoTCP
	ProtoUDP
)

// Hook is the place in the packet's way at which a chain runs.
type Hook uint8

// The two hooks that redirection needs.
const (
	Prerouting Hook = iota
	Output
)

// Kind is the layer of a chain. It fixes the chain's type and priority in every back end.
type Kind uint8

// The kinds of chain in the order in which the kernel runs them.
const (
	Raw    Kind = iota // before connection tracking: conntrack zones
	Mangle             // after connection tracking: marks; on Output a change re-routes the packet
	NAT                // first packet of a connection only: redirection
)

// Mark is a packet or connection mark under a mask. The zero Mark stands for "any".
type Mark struct{ Value, Mask uint32 }

// IsZero reports whether the mark stands for "any".
func (m Mark) IsZero() bool { return m == Mark{} }

// Match lists what a packet must look like; all fields that are set must hold, a zero field matches anything.
// It is comparable: equal matches are == each other.
type Match struct {
	Family Family
	Proto  Proto
	// Syn wants the first packet of a TCP connection (SYN without ACK, FIN, RST). Connections that were open
	// before the rule existed are seen as new by connection tracking, but never match.
	Syn bool
	// Loopback matches by interface lo: the incoming one at Prerouting, the outgoing one at Output.
	Loopback, NotLoopback bool
	// Interface is the name of the incoming interface; for Prerouting only.
	Interface string
	// Source and Dest are single addresses.
	Source, Dest netip.Addr
	// NotDest excludes a single address, e.g. 127.0.0.1.
	NotDest               netip.Addr
	SourcePort, DestPort  uint16
	NotDestPort           uint16
	Mark, NotMark         Mark
	ConnMark, NotConnMark Mark
}

// Verb is what a rule does with a packet that matches.
type Verb uint8

// The actions a rule may take.
const (
	Accept      Verb = iota // leave this chain; the packet is not redirected
	Redirect                // send to Action.Port of this network namespace
	SetConnMark             // write Action.Mark to the connection
	RestoreMark             // copy the connection's mark to the packet
	SetZone                 // track in conntrack zone Action.Zone
	Divert                  // give to the transparent socket at Action.Addr and Action.Port, unchanged but for Action.Mark
)

// Action is the verb and its operand.
type Action struct {
	Verb Verb
	Addr netip.Addr
	Port uint16
	Mark Mark
	Zone uint16
}

// Rule is one line of a chain.
type Rule struct {
	Match  Match
	Action Action
	// Why tells a person what the rule is for; back ends attach it as a comment.
	Why string
}

// Chain is a base chain: rules are tried in order, the first verdict ends the chain, the policy is accept.
type Chain struct {
	Hook  Hook
	Kind  Kind
	Rules []Rule
}

// PolicyRoute delivers packets with a mark to this namespace's own sockets, whatever address they carry:
// "ip rule fwmark Mark lookup Table priority Priority" and "ip route add local default dev lo table Table".
type PolicyRoute struct {
	Family   Family // IPv4 or IPv6
	Mark     Mark
	Priority int
	Table    int
}

// Sysctl is a setting of the network namespace, named by its path below /proc/sys.
type Sysctl struct {
	Path, Value, Why string
	// Optional settings may be missing in the kernel; everything else then works, with the loss Why names.
	Optional bool
}

// Rules is all that redirection changes in a pod's network namespace. It is plain data: building it touches
// nothing, comparing two tells whether a pod must be re-applied, and String prints it for people and goldens.
type Rules struct {
	Chains  []Chain
	Routes  []PolicyRoute
	Sysctls []Sysctl
	// Capture says the same as Chains, for back ends that filter no packets.
	Capture Capture
}

// Capture is what is redirected, without the how. The zero Capture is nothing.
type Capture struct {
	// Outbound captures new TCP connections that start in the pod, Inbound those that reach it past the tunnel's port, DNS what
	// the pod sends to port 53 over UDP and TCP.
	Outbound, Inbound, DNS bool
	// IPv6 covers IPv6 too.
	IPv6 bool
	// Probes are the addresses whose connections are left alone.
	Probes []netip.Addr
	// Reroute is that of Pod.
	Reroute string
}
