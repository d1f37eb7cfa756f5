package simulate

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

// book gives addresses that follow from the name, so that the same object has the same address in whatever company it is.
type book struct {
	prefix [2]byte
	by     map[string]netip.Addr
	taken  map[netip.Addr]bool
}

func newBook(a, b byte) *book {
	return &book{prefix: [2]byte{a, b}, by: map[string]netip.Addr{}, taken: map[netip.Addr]bool{}}
}

// reserve keeps an address that somebody has.
func (b *book) reserve(text string) {
	if ip, err := netip.ParseAddr(text); err == nil {
		b.taken[ip] = true
	}
}

// of returns the address of a name.
func (b *book) of(name string) netip.Addr {
	if ip, ok := b.by[name]; ok {
		return ip
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	const usable = 1<<16 - 512
	start := h.Sum32() % usable
	for i := range uint32(usable) {
		v4 := [4]byte{b.prefix[0], b.prefix[1]}
		binary.BigEndian.PutUint16(v4[2:], uint16(256+(start+i)%usable))
		if ip := netip.AddrFrom4(v4); !b.taken[ip] {
			b.taken[ip], b.by[name] = true, ip
			return ip
		}
	}
	return netip.Addr{}
}
