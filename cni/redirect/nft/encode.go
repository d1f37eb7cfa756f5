package nft

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// reg is the one register that all expressions use.
const reg = 1

// regPort is a second one, beside an address in reg.
const regPort = 2

// Offsets and bits of the TCP header.
const (
	tcpFlagsOffset = 13
	tcpSynBits     = 0x17 // fin|syn|rst|ack
	tcpSyn         = 0x02
)

// chainOf returns the nftables form of a base chain.
func chainOf(t *nftables.Table, c plan.Chain) *nftables.Chain {
	out := &nftables.Chain{Name: c.Name(), Table: t, Type: nftables.ChainTypeFilter}
	switch c.Hook {
	case plan.Prerouting:
		out.Hooknum = nftables.ChainHookPrerouting
	case plan.Output:
		out.Hooknum = nftables.ChainHookOutput
	}
	switch c.Kind {
	case plan.Raw:
		out.Priority = nftables.ChainPriorityRaw
	case plan.Mangle:
		out.Priority = nftables.ChainPriorityMangle
		if c.Hook == plan.Output {
			out.Type = nftables.ChainTypeRoute // a changed mark finds another route
		}
	case plan.NAT:
		out.Priority, out.Type = nftables.ChainPriorityNATDest, nftables.ChainTypeNAT
	}
	return out
}

// exprsOf compiles a rule to the kernel's expressions.
func exprsOf(c plan.Chain, r plan.Rule) ([]expr.Any, error) {
	var e encoder
	e.match(c.Hook, r.Match)
	if err := e.action(r.Action); err != nil {
		return nil, fmt.Errorf("rule %q: %w", r, err)
	}
	return e.out, nil
}

// encoder collects the expressions of one rule.
type encoder struct{ out []expr.Any }

func (e *encoder) add(x ...expr.Any) { e.out = append(e.out, x...) }

func (e *encoder) compare(op expr.CmpOp, data []byte) {
	e.add(&expr.Cmp{Op: op, Register: reg, Data: data})
}

func (e *encoder) match(hook plan.Hook, m plan.Match) {
	e.family(m)
	if m.Loopback || m.NotLoopback {
		e.loopback(hook, m.Loopback)
	}
	if m.Interface != "" {
		e.device(expr.MetaKeyIIFNAME, expr.CmpOpEq, m.Interface)
	}
	e.address(m.Source, expr.CmpOpEq, true)
	e.address(m.Dest, expr.CmpOpEq, false)
	e.address(m.NotDest, expr.CmpOpNeq, false)
	if m.Proto != plan.ProtoAny {
		proto := map[plan.Proto]byte{plan.ProtoTCP: unix.IPPROTO_TCP, plan.ProtoUDP: unix.IPPROTO_UDP}[m.Proto]
		e.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg})
		e.compare(expr.CmpOpEq, []byte{proto})
	}
	e.port(0, m.SourcePort, expr.CmpOpEq)
	e.port(2, m.DestPort, expr.CmpOpEq)
	e.port(2, m.NotDestPort, expr.CmpOpNeq)
	if m.Syn {
		e.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1})
		e.add(&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{tcpSynBits}, Xor: []byte{0}})
		e.compare(expr.CmpOpEq, []byte{tcpSyn})
	}
	packet, conn := &expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, &expr.Ct{Key: expr.CtKeyMARK, Register: reg}
	e.mark(packet, m.Mark, expr.CmpOpEq)
	e.mark(packet, m.NotMark, expr.CmpOpNeq)
	e.mark(conn, m.ConnMark, expr.CmpOpEq)
	e.mark(conn, m.NotConnMark, expr.CmpOpNeq)
}

// family restricts the rule to the family it names, or the one that its addresses imply.
func (e *encoder) family(m plan.Match) {
	f := m.Family
	for _, a := range []netip.Addr{m.Source, m.Dest, m.NotDest} {
		if f == plan.FamilyAny && a.IsValid() {
			f = plan.FamilyIPv6
			if a.Is4() {
				f = plan.FamilyIPv4
			}
		}
	}
	if f == plan.FamilyAny {
		return
	}
	proto := byte(unix.NFPROTO_IPV4)
	if f == plan.FamilyIPv6 {
		proto = unix.NFPROTO_IPV6
	}
	e.add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg})
	e.compare(expr.CmpOpEq, []byte{proto})
}

func (e *encoder) loopback(hook plan.Hook, want bool) {
	key, op := expr.MetaKeyIIFNAME, expr.CmpOpNeq
	if hook == plan.Output {
		key = expr.MetaKeyOIFNAME
	}
	if want {
		op = expr.CmpOpEq
	}
	e.device(key, op, "lo")
}

func (e *encoder) device(key expr.MetaKey, op expr.CmpOp, name string) {
	e.add(&expr.Meta{Key: key, Register: reg})
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	e.compare(op, data)
}

func (e *encoder) address(a netip.Addr, op expr.CmpOp, source bool) {
	if !a.IsValid() {
		return
	}
	offset, length := uint32(16), uint32(4)
	if source {
		offset = 12
	}
	if a.Is6() {
		offset, length = 24, 16
		if source {
			offset = 8
		}
	}
	e.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length})
	e.compare(op, a.AsSlice())
}

func (e *encoder) port(offset uint32, port uint16, op expr.CmpOp) {
	if port == 0 {
		return
	}
	e.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2})
	e.compare(op, binaryutil.BigEndian.PutUint16(port))
}

func (e *encoder) mark(load expr.Any, m plan.Mark, op expr.CmpOp) {
	if m.IsZero() {
		return
	}
	e.add(load, &expr.Bitwise{
		SourceRegister: reg, DestRegister: reg, Len: 4,
		Mask: binaryutil.NativeEndian.PutUint32(m.Mask), Xor: binaryutil.NativeEndian.PutUint32(0),
	})
	e.compare(op, binaryutil.NativeEndian.PutUint32(m.Value))
}

func (e *encoder) action(a plan.Action) error {
	switch a.Verb {
	case plan.Accept:
		e.add(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
	case plan.Redirect:
		e.add(&expr.Counter{},
			&expr.Immediate{Register: reg, Data: binaryutil.BigEndian.PutUint16(a.Port)},
			&expr.Redir{RegisterProtoMin: reg})
	case plan.SetConnMark:
		e.add(&expr.Ct{Key: expr.CtKeyMARK, Register: reg},
			&expr.Bitwise{
				SourceRegister: reg, DestRegister: reg, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(^a.Mark.Mask),
				Xor:  binaryutil.NativeEndian.PutUint32(a.Mark.Value),
			},
			&expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true})
	case plan.RestoreMark:
		e.add(&expr.Ct{Key: expr.CtKeyMARK, Register: reg},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true})
	case plan.Divert:
		e.divert(a)
	case plan.SetZone:
		e.add(&expr.Immediate{Register: reg, Data: binaryutil.NativeEndian.PutUint16(a.Zone)},
			&expr.Ct{Key: expr.CtKeyZONE, Register: reg, SourceRegister: true})
	default:
		return fmt.Errorf("action %d has no nftables form", a.Verb)
	}
	return nil
}

// divert marks the packet first: without a socket the rule ends there, and the packet stays here all the same.
func (e *encoder) divert(a plan.Action) {
	family := byte(unix.NFPROTO_IPV4)
	if a.Addr.Is6() {
		family = unix.NFPROTO_IPV6
	}
	e.add(&expr.Counter{},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^a.Mark.Mask), Xor: binaryutil.NativeEndian.PutUint32(a.Mark.Value),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true},
		&expr.Immediate{Register: reg, Data: a.Addr.AsSlice()},
		&expr.Immediate{Register: regPort, Data: binaryutil.BigEndian.PutUint16(a.Port)},
		&expr.TProxy{Family: family, TableFamily: unix.NFPROTO_INET, RegAddr: reg, RegPort: regPort},
		&expr.Verdict{Kind: expr.VerdictAccept})
}
