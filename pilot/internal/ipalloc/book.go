package ipalloc

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	apinetworking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/vip"
)

// labelAllocate says "false" on ServiceEntries that are to get no address.
const labelAllocate = "networking.istio.io/enable-autoallocate-ip"

// pair is what a host has: an address of each family, or the zero value while it has none.
type pair struct{ v4, v6 netip.Addr }

// claim is a host of a ServiceEntry that has an address.
type claim struct {
	entry, host string
	created     time.Time
	// fixed is an address that a person wrote: it is never given up.
	fixed bool
}

// before tells whose claim to an address is the better one: the older one's.
func (c claim) before(o claim) bool {
	if c.fixed != o.fixed {
		return c.fixed
	}
	return cmp.Or(c.created.Compare(o.created), cmp.Compare(c.entry, o.entry), cmp.Compare(c.host, o.host)) < 0
}

// book knows who has which address. Not safe for concurrent use.
type book struct {
	claims  map[netip.Addr][]claim
	entries map[string]map[string]pair // what each host of an entry has
	all     map[string][]netip.Addr    // every address that an entry claims
}

func newBook() *book {
	return &book{claims: map[netip.Addr][]claim{}, entries: map[string]map[string]pair{}, all: map[string][]netip.Addr{}}
}

func entryKey(e *networkingv1.ServiceEntry) string { return e.Namespace + "/" + e.Name }

// eligible tells whether the hosts of an entry get addresses.
func eligible(e *networkingv1.ServiceEntry) bool {
	return e.DeletionTimestamp == nil && len(e.Spec.GetAddresses()) == 0 && !strings.EqualFold(e.Labels[labelAllocate], "false") &&
		e.Spec.GetResolution() != apinetworking.ServiceEntry_NONE
}

// hosts are those of an entry that can have an address, in order and each once. One with a wildcard stands for many.
func hosts(e *networkingv1.ServiceEntry) []string {
	if !eligible(e) {
		return nil
	}
	var out []string
	for _, h := range e.Spec.GetHosts() {
		if !strings.Contains(h, "*") && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// see takes note of an entry as it is, and returns the others that have to give up an address, because this one has it and is older.
func (b *book) see(e *networkingv1.ServiceEntry) (losers []string) {
	key := entryKey(e)
	before := b.entries[key]
	b.drop(key)
	have := map[string]pair{}
	for _, a := range e.Status.GetAddresses() {
		ip, err := netip.ParseAddr(a.GetValue())
		if err != nil || !vip.Contains(ip) {
			continue
		}
		p := have[a.GetHost()]
		switch ip = ip.Unmap(); {
		case ip.Is4() && !p.v4.IsValid():
			p.v4 = ip
		case ip.Is6() && !p.v6.IsValid():
			p.v6 = ip
		}
		have[a.GetHost()] = p
	}
	mine := map[string]pair{}
	for _, h := range hosts(e) {
		p := have[h]
		if p == (pair{}) {
			p = before[h] // given, and not seen written yet
		}
		if p != (pair{}) {
			mine[h] = p
		}
	}
	b.entries[key] = mine
	for host, p := range mine {
		for _, ip := range []netip.Addr{p.v4, p.v6} {
			losers = append(losers, b.take(ip, claim{entry: key, host: host, created: e.CreationTimestamp.Time})...)
		}
	}
	for _, text := range e.Spec.GetAddresses() {
		if ip, err := netip.ParseAddr(text); err == nil && vip.Contains(ip) {
			losers = append(losers, b.take(ip.Unmap(), claim{entry: key, fixed: true})...)
		}
	}
	return losers
}

// take notes a claim and returns the entries of all but the best one to the same address.
func (b *book) take(ip netip.Addr, c claim) (losers []string) {
	if !ip.IsValid() {
		return nil
	}
	b.claims[ip] = append(b.claims[ip], c)
	b.all[c.entry] = append(b.all[c.entry], ip)
	best := b.best(ip)
	for _, o := range b.claims[ip] {
		if o != best {
			losers = append(losers, o.entry)
		}
	}
	return losers
}

func (b *book) best(ip netip.Addr) claim {
	out := b.claims[ip][0]
	for _, c := range b.claims[ip][1:] {
		if c.before(out) {
			out = c
		}
	}
	return out
}

// drop forgets an entry.
func (b *book) drop(key string) {
	for _, ip := range b.all[key] {
		rest := slices.DeleteFunc(b.claims[ip], func(c claim) bool { return c.entry == key })
		if b.claims[ip] = rest; len(rest) == 0 {
			delete(b.claims, ip)
		}
	}
	delete(b.all, key)
	delete(b.entries, key)
}

// assign gives every host of an entry, which has been seen, the addresses that it lacks or has to give up. full is set when there
// are none left.
func (b *book) assign(e *networkingv1.ServiceEntry) (out []*apinetworking.ServiceEntryAddress, full bool) {
	key := entryKey(e)
	for _, host := range hosts(e) {
		own := claim{entry: key, host: host, created: e.CreationTimestamp.Time}
		p := b.entries[key][host]
		keep4, keep6 := p.v4.IsValid() && b.best(p.v4) == own, p.v6.IsValid() && b.best(p.v6) == own
		if !keep4 || !keep6 {
			b.release(own, p)
			slot, ok := vip.Pick(key, host, func(s vip.Slot) bool {
				_, taken4 := b.claims[s.IPv4()]
				_, taken6 := b.claims[s.IPv6()]
				return (keep4 || !taken4) && (keep6 || !taken6)
			})
			if !ok {
				full = true
				continue
			}
			if !keep4 {
				p.v4 = slot.IPv4()
			}
			if !keep6 {
				p.v6 = slot.IPv6()
			}
			b.entries[key][host] = p
			b.take(p.v4, own)
			b.take(p.v6, own)
		}
		for _, ip := range []netip.Addr{p.v4, p.v6} {
			out = append(out, &apinetworking.ServiceEntryAddress{Host: host, Value: ip.String()})
		}
	}
	return out, full
}

// release gives up what a host has.
func (b *book) release(own claim, p pair) {
	for _, ip := range []netip.Addr{p.v4, p.v6} {
		rest := slices.DeleteFunc(b.claims[ip], func(c claim) bool { return c == own })
		if b.claims[ip] = rest; len(rest) == 0 {
			delete(b.claims, ip)
		}
	}
	delete(b.entries[own.entry], own.host)
}

// same tells whether an entry's status has just these addresses.
func same(e *networkingv1.ServiceEntry, want []*apinetworking.ServiceEntryAddress) bool {
	return slices.EqualFunc(e.Status.GetAddresses(), want, func(a, b *apinetworking.ServiceEntryAddress) bool {
		return a.GetHost() == b.GetHost() && a.GetValue() == b.GetValue()
	})
}
