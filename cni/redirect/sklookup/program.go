package sklookup

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// Offsets in struct bpf_sk_lookup. Addresses are in network order, the local port is in host order.
const (
	ctxFamily    = 8
	ctxProtocol  = 12
	ctxRemoteIP4 = 16
	ctxRemoteIP6 = 20
	ctxLocalIP4  = 40
	ctxLocalIP6  = 44
	ctxLocalPort = 60
	ctxInterface = 64
)

const (
	portDNS = 53
	// loopbackInterface is lo's index in every network namespace.
	loopbackInterface = 1
	// only chooses exactly the socket that is assigned, not another one of its SO_REUSEPORT group: an application of the same user
	// could have joined that.
	only = 1 << 1
	// gpl is what the kernel wants to hear of programs that use helpers of its own licence.
	gpl = "Dual MIT/GPL"
)

// role is what a listener of the proxy is for.
type role uint32

const (
	outbound role = iota
	inbound
	dnsTCP
	dnsUDP
	roles
)

// slots is how many listeners of one role and family there may be: while one proxy replaces another, both have theirs.
const slots = 4

// slot is the place of a listener in the map: role, family of the traffic, number.
func slot(r role, v6 bool, n uint32) uint32 {
	s := uint32(r)*2*slots + n
	if v6 {
		s += slots
	}
	return s
}

// key is that of the map of listeners.
type key struct{ Netns, Slot uint32 }

// pod is what a program is made for.
type pod struct {
	netns     uint32 // inode
	addresses []netip.Addr
	capture   plan.Capture
}

// Registers with a meaning throughout the program.
const (
	rCtx       = asm.R6
	rFamily    = asm.R7
	rProtocol  = asm.R8
	rInterface = asm.R9
)

// program returns the decision for packets that find no connection. It reads:
//
//	to loopback                          pass
//	to the pod, from the pod             pass: it talks to itself
//	to the pod, from the node's probes   pass
//	to the pod, over loopback            pass: the proxy, wearing the peer's address
//	to the pod, TCP                      the inbound listener; the tunnel's port passes
//	elsewhere, from within               the outbound listener, or the one for DNS
//	elsewhere, from outside              drop: an address that is not known (yet) must not go past the mesh
//
// What has no listener is dropped too.
func program(p pod, listeners int) asm.Instructions {
	b := &builder{pod: p}
	b.add(
		asm.Mov.Reg(rCtx, asm.R1),
		asm.LoadMem(rFamily, rCtx, ctxFamily, asm.Word),
		asm.LoadMem(rProtocol, rCtx, ctxProtocol, asm.Word),
		asm.LoadMem(rInterface, rCtx, ctxInterface, asm.Word),
		asm.JEq.Imm(rFamily, unix.AF_INET6, "v6"),
		asm.JNE.Imm(rFamily, unix.AF_INET, "pass"),
	)
	b.loopback4()
	b.addresses(false)
	b.label("v6")
	if p.capture.IPv6 {
		b.loopback6()
		b.addresses(true)
	} else {
		b.add(asm.Ja.Label("pass"))
	}
	b.inbound()
	b.outbound()
	b.choose(listeners)
	b.label("pass")
	b.add(asm.Mov.Imm(asm.R0, 1), asm.Return())
	b.label("drop")
	b.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return b.out
}

// builder assembles a program.
type builder struct {
	pod   pod
	out   asm.Instructions
	next  string // label of the next instruction
	fresh int
}

func (b *builder) add(list ...asm.Instruction) {
	for _, i := range list {
		if b.next != "" {
			i, b.next = i.WithSymbol(b.next), ""
		}
		b.out = append(b.out, i)
	}
}

// label names the instruction that follows.
func (b *builder) label(name string) {
	if b.next != "" { // two names for one place
		b.add(asm.Mov.Reg(rCtx, rCtx))
	}
	b.next = name
}

func (b *builder) unique() string {
	b.fresh++
	return "l" + strconv.Itoa(b.fresh)
}

func (b *builder) loopback4() {
	mask := int32(binary.NativeEndian.Uint32([]byte{255, 0, 0, 0}))
	b.add(
		asm.LoadMem(asm.R1, rCtx, ctxLocalIP4, asm.Word),
		asm.And.Imm32(asm.R1, mask),
		asm.JEq.Imm32(asm.R1, int32(binary.NativeEndian.Uint32([]byte{127, 0, 0, 0})), "pass"),
	)
}

func (b *builder) loopback6() { b.isAddress(netip.IPv6Loopback(), false, "pass") }

// isAddress jumps to then if the packet's destination is ip; with remote set, if its source is.
func (b *builder) isAddress(ip netip.Addr, remote bool, then string) {
	if ip.Is4() {
		four, at := ip.As4(), int16(ctxLocalIP4)
		if remote {
			at = ctxRemoteIP4
		}
		b.add(
			asm.LoadMem(asm.R1, rCtx, at, asm.Word),
			asm.JEq.Imm32(asm.R1, int32(binary.NativeEndian.Uint32(four[:])), then),
		)
		return
	}
	sixteen, at, other := ip.As16(), int16(ctxLocalIP6), b.unique()
	if remote {
		at = ctxRemoteIP6
	}
	for word := range 4 {
		value := int32(binary.NativeEndian.Uint32(sixteen[4*word:]))
		b.add(asm.LoadMem(asm.R1, rCtx, at+int16(4*word), asm.Word))
		if word < 3 {
			b.add(asm.JNE.Imm32(asm.R1, value, other))
			continue
		}
		b.add(asm.JEq.Imm32(asm.R1, value, then))
	}
	b.label(other)
}

// addresses tells by the addresses of one family where a packet comes from and goes to.
func (b *builder) addresses(v6 bool) {
	own, probes := of(b.pod.addresses, v6), of(b.pod.capture.Probes, v6)
	ours := b.unique()
	for _, ip := range own {
		b.isAddress(ip, false, ours)
	}
	b.add(asm.JEq.Imm(rInterface, loopbackInterface, "outbound"))
	for _, ip := range own {
		b.isAddress(ip, true, "outbound")
	}
	b.add(asm.JEq.Imm(rProtocol, unix.IPPROTO_TCP, "drop"), asm.Ja.Label("pass"))
	if len(own) == 0 {
		return // the verifier wants no code that is never reached
	}
	b.label(ours)
	for _, ip := range append(own, probes...) {
		b.isAddress(ip, true, "pass")
	}
	b.add(asm.Ja.Label("inbound"))
}

func of(list []netip.Addr, v6 bool) []netip.Addr {
	var out []netip.Addr
	for _, ip := range list {
		if ip = ip.Unmap(); ip.Is6() == v6 {
			out = append(out, ip.WithZone(""))
		}
	}
	return out
}

func (b *builder) inbound() {
	b.label("inbound")
	if !b.pod.capture.Inbound {
		b.add(asm.Ja.Label("pass"))
		return
	}
	b.add(
		asm.JNE.Imm(rProtocol, unix.IPPROTO_TCP, "pass"),
		asm.JEq.Imm(rInterface, loopbackInterface, "pass"),
		asm.LoadMem(asm.R1, rCtx, ctxLocalPort, asm.Word),
		asm.JEq.Imm(asm.R1, plan.PortHBONE, "pass"),
		asm.Mov.Imm(asm.R9, int32(slot(inbound, false, 0))),
		asm.Ja.Label("choose"),
	)
}

func (b *builder) outbound() {
	b.label("outbound")
	if !b.pod.capture.Outbound {
		b.add(asm.Ja.Label("pass"))
		return
	}
	b.add(asm.LoadMem(asm.R1, rCtx, ctxLocalPort, asm.Word))
	if b.pod.capture.DNS {
		b.add(
			asm.JNE.Imm(asm.R1, portDNS, "app"),
			asm.Mov.Imm(asm.R9, int32(slot(dnsUDP, false, 0))),
			asm.JEq.Imm(rProtocol, unix.IPPROTO_UDP, "choose"),
			asm.Mov.Imm(asm.R9, int32(slot(dnsTCP, false, 0))),
			asm.JEq.Imm(rProtocol, unix.IPPROTO_TCP, "choose"),
		)
	}
	b.label("app")
	b.add(
		asm.JNE.Imm(rProtocol, unix.IPPROTO_TCP, "pass"),
		asm.Mov.Imm(asm.R9, int32(slot(outbound, false, 0))),
	)
}

// choose takes the first listener of those that R9 names.
func (b *builder) choose(listeners int) {
	const k = -8
	b.label("choose")
	b.add(
		asm.JNE.Imm(rFamily, unix.AF_INET6, "number"),
		asm.Add.Imm(asm.R9, slots),
	)
	b.label("number")
	for n := range slots {
		next := b.unique()
		if n > 0 {
			b.add(asm.Add.Imm(asm.R9, 1))
		}
		b.add(
			asm.StoreImm(asm.R10, k, int64(int32(b.pod.netns)), asm.Word),
			asm.StoreMem(asm.R10, k+4, asm.R9, asm.Word),
			asm.LoadMapPtr(asm.R1, listeners),
			asm.Mov.Reg(asm.R2, asm.R10),
			asm.Add.Imm(asm.R2, k),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, next),
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.Mov.Reg(asm.R1, rCtx),
			asm.Mov.Reg(asm.R2, asm.R8),
			asm.Mov.Imm(asm.R3, only),
			asm.FnSkAssign.Call(),
			asm.Mov.Reg(asm.R7, asm.R0),
			asm.Mov.Reg(asm.R1, asm.R8),
			asm.FnSkRelease.Call(),
			asm.JEq.Imm(asm.R7, 0, "pass"),
		)
		b.label(next)
	}
	b.add(asm.Ja.Label("drop"))
}

// marker marks what arrives from outside, so that the answers of the application (net.ipv4.tcp_fwmark_accept) leave by the way they
// came.
func marker() *ebpf.ProgramSpec {
	const skbMark = 8 // in struct __sk_buff
	return &ebpf.ProgramSpec{
		Name: "mesh_bypass", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: gpl,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R2, int32(plan.OwnMark().Value)),
			asm.StoreMem(asm.R1, skbMark, asm.R2, asm.Word),
			asm.Mov.Imm(asm.R0, -1), // TCX_NEXT
			asm.Return(),
		},
	}
}
