package sklookup

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/isthmus-mesh/isthmus/cni/internal/sockets"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// need is a listener that there must be.
type need struct {
	role role
	v6   bool
}

func (n need) String() string {
	ports := map[role]string{
		outbound: fmt.Sprint("TCP port ", plan.PortOutbound), inbound: fmt.Sprint("TCP port ", plan.PortInbound),
		dnsTCP: fmt.Sprint("TCP port ", plan.PortDNS), dnsUDP: fmt.Sprint("UDP port ", plan.PortDNS),
	}
	if n.v6 {
		return ports[n.role] + " for IPv6"
	}
	return ports[n.role] + " for IPv4"
}

// census is the listeners of a pod, by what they are for.
type census struct {
	tcp, udp map[need][]uint64 // cookies
}

// count finds the listeners of the proxy. Others on the same ports do not count: they lack the mark, which takes a privilege.
func count(ns *os.File) (census, error) {
	listeners, err := sockets.Listeners(ns)
	if err != nil {
		return census{}, err
	}
	receivers, err := sockets.Receivers(ns)
	if err != nil {
		return census{}, err
	}
	c := census{tcp: map[need][]uint64{}, udp: map[need][]uint64{}}
	enlist := func(into map[need][]uint64, list []sockets.Socket, byPort map[uint16]role) {
		for _, s := range list {
			r, ok := byPort[s.Local.Port()]
			if !ok || !s.Transparent || s.Mark&plan.OwnMark().Mask != plan.OwnMark().Value {
				continue
			}
			if s.IPv6 {
				into[need{r, true}] = append(into[need{r, true}], s.Cookie)
			}
			// A listener on one address of IPv6 alone takes no IPv4, whatever its options.
			if !s.IPv6 || !s.V6Only && s.Local.Addr().IsUnspecified() {
				into[need{r, false}] = append(into[need{r, false}], s.Cookie)
			}
		}
	}
	enlist(c.tcp, listeners, map[uint16]role{plan.PortOutbound: outbound, plan.PortInbound: inbound, plan.PortDNS: dnsTCP})
	enlist(c.udp, receivers, map[uint16]role{plan.PortDNS: dnsUDP})
	return c, nil
}

// needs are the listeners without which a capture cannot be. Of IPv6, only what the proxy has counts: it may do without.
func needs(c plan.Capture, v6 bool) []need {
	out := []need{{outbound, v6}}
	if c.Inbound {
		out = append(out, need{inbound, v6})
	}
	if c.DNS {
		out = append(out, need{dnsTCP, v6}, need{dnsUDP, v6})
	}
	return out
}

// listens tells which of the pod's addresses are to be served.
func (n *network) listens(c plan.Capture) []bool {
	var out []bool
	if n.source[false].IsValid() {
		out = append(out, false)
	}
	if c.IPv6 && n.source[true].IsValid() {
		out = append(out, true)
	}
	return out
}

// enlist enters the proxy's listeners into the map. Those that are in it stay where they are; those that have been closed have left it
// by themselves.
func (b *Backend) enlist(ns *os.File, number uint32, n *network, c plan.Capture) error {
	all, err := count(ns)
	if err != nil {
		return err
	}
	tcp, udp := map[uint64][]order{}, map[uint64][]order{}
	for _, v6 := range n.listens(c) {
		for _, want := range needs(c, v6) {
			have, into := all.tcp[want], tcp
			if want.role == dnsUDP {
				have, into = all.udp[want], udp
			}
			if len(have) == 0 {
				return fmt.Errorf("%w: %s", redirect.ErrNoListener, want)
			}
			for cookie, at := range b.free(number, want, have) {
				into[cookie] = append(into[cookie], order{Netns: number, Slot: at})
			}
		}
	}
	return errors.Join(b.carryOutAll(ns, tcp, true), b.carryOutAll(ns, udp, false))
}

// carryOutAll gives every socket its orders, one at a time: a listener of both families is in two places.
func (b *Backend) carryOutAll(ns *os.File, orders map[uint64][]order, tcp bool) error {
	iterator := b.store.visitor.udp
	if tcp {
		iterator = b.store.visitor.tcp
	}
	for len(orders) > 0 {
		round := map[uint64]order{}
		for cookie, list := range orders {
			round[cookie] = list[0]
			if orders[cookie] = list[1:]; len(list) == 1 {
				delete(orders, cookie)
			}
		}
		if err := b.store.visitor.carryOut(ns, iterator, round); err != nil {
			return err
		}
	}
	return nil
}

// free finds places for the listeners that are not in the map yet.
func (b *Backend) free(number uint32, want need, have []uint64) map[uint64]uint32 {
	taken := [slots]uint64{}
	for i := range taken {
		taken[i] = b.at(number, want, uint32(i))
	}
	out := map[uint64]uint32{}
	for _, cookie := range have {
		if slices.Contains(taken[:], cookie) {
			continue
		}
		if i := slices.Index(taken[:], 0); i >= 0 {
			taken[i] = cookie
			out[cookie] = slot(want.role, want.v6, uint32(i))
		}
	}
	return out
}

// at is the cookie of the listener in a place; 0 if there is none.
func (b *Backend) at(number uint32, want need, i uint32) uint64 {
	var cookie uint64
	if err := b.store.listeners.Lookup(key{number, slot(want.role, want.v6, i)}, &cookie); errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0
	}
	return cookie
}

func (b *Backend) inspectListeners(ns *os.File, number uint32, n *network, c plan.Capture) ([]string, error) {
	all, err := count(ns)
	if err != nil {
		return nil, err
	}
	var drift []string
	for _, v6 := range n.listens(c) {
		for _, want := range needs(c, v6) {
			have := all.tcp[want]
			if want.role == dnsUDP {
				have = all.udp[want]
			}
			if missing := b.free(number, want, have); len(have) == 0 || len(missing) > 0 {
				drift = append(drift, fmt.Sprintf("a listener of the proxy is not known: %s", want))
			}
		}
	}
	return drift, nil
}
