// Package vip has the addresses that the mesh gives to hosts which have none: 240.240.0.0/16 and 2001:2::/48. Which one a host
// gets follows from its name, so that it is the same after a restart, in another replica and with another source of objects.
package vip

import (
	"encoding/binary"
	"net/netip"

	"github.com/cespare/xxhash/v2"
)

// Slot is a place in both ranges.
type Slot uint16

// usable is how many slots there are: the first and the last address of the IPv4 range are not used.
const usable = 1<<16 - 2

// Pick returns the slot for a host, entry being the namespace and name of what it is a host of. It is the first one, from the
// one that follows from the names on, that is free; ok is false when none is.
func Pick(entry, host string, free func(Slot) bool) (s Slot, ok bool) {
	start := xxhash.Sum64String(entry+"/"+host) % usable
	for i := range uint64(usable) {
		if s = Slot((start+i)%usable + 1); free(s) {
			return s, true
		}
	}
	return 0, false
}

// IPv4 is the slot's address in 240.240.0.0/16.
func (s Slot) IPv4() netip.Addr {
	out := [4]byte{240, 240}
	binary.BigEndian.PutUint16(out[2:], uint16(s))
	return netip.AddrFrom4(out)
}

// IPv6 is the slot's address in 2001:2::/48.
func (s Slot) IPv6() netip.Addr {
	out := [16]byte{0x20, 0x01, 0x00, 0x02}
	binary.BigEndian.PutUint16(out[14:], uint16(s))
	return netip.AddrFrom16(out)
}

// Contains tells whether an address is of one of the two ranges.
func Contains(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return b[0] == 240 && b[1] == 240
	}
	b := a.As16()
	return [6]byte(b[:6]) == [6]byte{0x20, 0x01, 0x00, 0x02, 0, 0}
}
