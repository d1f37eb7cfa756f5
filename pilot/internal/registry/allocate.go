package registry

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/cespare/xxhash/v2"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// allocator gives addresses of 240.240.0.0/16 and 2001:2::/48 to hosts that have none of their own. The address follows from
// the entry and the host, so that it survives a restart; two that collide are told apart in the order in which they come.
type allocator struct {
	// guarded by mu, though only the graph writes
	mu      sync.Mutex
	slots   map[uint16]string            // slot → entry and host
	byEntry map[string]map[string]uint16 // entry → host → slot
}

func newAllocator() *allocator {
	return &allocator{slots: map[uint16]string{}, byEntry: map[string]map[string]uint16{}}
}

// addresses returns those of a host, nil when all are taken.
func (a *allocator) addresses(entry, host string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	slot, ok := a.byEntry[entry][host]
	if !ok {
		if slot, ok = a.free(entry + "/" + host); !ok {
			return nil
		}
		a.slots[slot] = entry + "/" + host
		if a.byEntry[entry] == nil {
			a.byEntry[entry] = map[string]uint16{}
		}
		a.byEntry[entry][host] = slot
	}
	v4 := [4]byte{240, 240}
	binary.BigEndian.PutUint16(v4[2:], slot)
	v6 := [16]byte{0x20, 0x01, 0x00, 0x02}
	binary.BigEndian.PutUint16(v6[14:], slot)
	return []string{netip.AddrFrom4(v4).String(), netip.AddrFrom16(v6).String()}
}

// free probes from the hash on. The first and last addresses of the range are not used.
func (a *allocator) free(key string) (uint16, bool) {
	const usable = 1<<16 - 2
	start := xxhash.Sum64String(key) % usable
	for i := range uint64(usable) {
		slot := uint16((start+i)%usable + 1)
		if _, taken := a.slots[slot]; !taken {
			return slot, true
		}
	}
	return 0, false
}

// release gives back what hosts had that are gone.
func (a *allocator) release(events []coll.Event[*networkingv1.ServiceEntry]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range events {
		kept := map[string]bool{}
		if e.New != nil {
			for _, h := range (*e.New).Spec.GetHosts() {
				kept[h] = true
			}
		}
		for host, slot := range a.byEntry[e.Key] {
			if !kept[host] {
				delete(a.slots, slot)
				delete(a.byEntry[e.Key], host)
			}
		}
		if len(a.byEntry[e.Key]) == 0 {
			delete(a.byEntry, e.Key)
		}
	}
}
