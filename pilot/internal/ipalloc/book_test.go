package ipalloc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apinetworking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/vip"
)

func entry(name string, age int, hosts ...string) *networkingv1.ServiceEntry {
	return &networkingv1.ServiceEntry{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(1000-age), 0))},
		Spec:       apinetworking.ServiceEntry{Hosts: hosts, Resolution: apinetworking.ServiceEntry_DNS},
	}
}

func with(e *networkingv1.ServiceEntry, pairs ...string) *networkingv1.ServiceEntry {
	e = e.DeepCopy()
	e.Status.Addresses = nil
	for _, p := range pairs {
		host, ip, _ := strings.Cut(p, "=")
		e.Status.Addresses = append(e.Status.Addresses, &apinetworking.ServiceEntryAddress{Host: host, Value: ip})
	}
	return e
}

func given(b *book, e *networkingv1.ServiceEntry) string {
	out, full := b.assign(e)
	if full {
		return "full"
	}
	return listed(out)
}

func expected(e, host string) string {
	slot, _ := vip.Pick(e, host, func(vip.Slot) bool { return true })
	return fmt.Sprintf("%s=%s %s=%s", host, slot.IPv4(), host, slot.IPv6())
}

func TestBook(t *testing.T) {
	b := newBook()
	a := entry("a", 10, "a.example.org", "*.example.org", "b.example.org", "a.example.org")
	b.see(a)
	want := expected("ns/a", "a.example.org") + " " + expected("ns/a", "b.example.org")
	if got := given(b, a); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// Not seen yet as written: still the same.
	b.see(a)
	if got := given(b, a); got != want {
		t.Errorf("the second time %s", got)
	}
	// After a restart, and when the status is written, too.
	written := with(a, strings.Fields(want)...)
	b = newBook()
	b.see(written)
	if got := given(b, written); got != want || !same(written, mustAssign(b, written)) {
		t.Errorf("after a restart %s", got)
	}
	// A host less, and one that had other addresses than would be given today.
	less := with(entry("a", 10, "b.example.org"), "b.example.org=240.240.7.7", "b.example.org=2001:2::9", "gone=240.240.7.8")
	b.see(less)
	if got := given(b, less); got != "b.example.org=240.240.7.7 b.example.org=2001:2::9" {
		t.Errorf("other ones: %s", got)
	}
	// One of the families is missing.
	half := with(entry("a", 10, "b.example.org"), "b.example.org=240.240.7.7")
	b = newBook()
	b.see(half)
	if got := given(b, half); !strings.HasPrefix(got, "b.example.org=240.240.7.7 b.example.org=2001:2::") {
		t.Errorf("half: %s", got)
	}
	b.drop("ns/a")
	if len(b.claims)+len(b.entries)+len(b.all) != 0 {
		t.Errorf("left: %v", b)
	}
}

func mustAssign(b *book, e *networkingv1.ServiceEntry) []*apinetworking.ServiceEntryAddress {
	out, _ := b.assign(e)
	return out
}

// The older entry keeps an address that two have, whichever is seen first; what a person wrote is older than anything.
func TestConflicts(t *testing.T) {
	old := with(entry("old", 10, "h"), "h=240.240.1.1", "h=2001:2::101")
	young := with(entry("young", 1, "h"), "h=240.240.1.1", "h=2001:2::102")
	for name, order := range map[string][]*networkingv1.ServiceEntry{"old first": {old, young}, "young first": {young, old}} {
		b := newBook()
		var losers []string
		for _, e := range order {
			losers = append(losers, b.see(e)...)
		}
		if !slices.Equal(losers, []string{"ns/young"}) {
			t.Errorf("%s: %v lose", name, losers)
		}
		if got := given(b, old); got != "h=240.240.1.1 h=2001:2::101" {
			t.Errorf("%s: old has %s", name, got)
		}
		got := given(b, young)
		if strings.Contains(got, "240.240.1.1 ") || !strings.Contains(got, "2001:2::102") {
			t.Errorf("%s: young has %s", name, got)
		}
	}
	b := newBook()
	b.see(old)
	fixed := entry("fixed", 0, "f")
	fixed.Spec.Addresses = []string{"240.240.1.1", "10.0.0.1"}
	if losers := b.see(fixed); !slices.Equal(losers, []string{"ns/old"}) {
		t.Errorf("%v lose", losers)
	}
	if got := given(b, old); strings.Contains(got, "240.240.1.1 ") {
		t.Errorf("old has %s", got)
	}
	if got := given(b, fixed); got != "" {
		t.Errorf("fixed has %s", got)
	}
}

func TestEligible(t *testing.T) {
	for name, change := range map[string]func(*networkingv1.ServiceEntry){
		"off":        func(e *networkingv1.ServiceEntry) { e.Labels = map[string]string{labelAllocate: "False"} },
		"addresses":  func(e *networkingv1.ServiceEntry) { e.Spec.Addresses = []string{"10.0.0.1"} },
		"resolution": func(e *networkingv1.ServiceEntry) { e.Spec.Resolution = apinetworking.ServiceEntry_NONE },
		"wildcard":   func(e *networkingv1.ServiceEntry) { e.Spec.Hosts = []string{"*.a"} },
	} {
		e := with(entry("e", 1, "a"), "a=240.240.1.1")
		change(e)
		b := newBook()
		b.see(e)
		if got := given(b, e); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	e := entry("e", 1, "a")
	e.Labels = map[string]string{labelAllocate: "true"}
	if len(hosts(e)) != 1 {
		t.Error("on, and not eligible")
	}
}

// Many hosts: no address is given twice.
func TestNoDuplicates(t *testing.T) {
	b, seen := newBook(), map[string]bool{}
	for i := range 3000 {
		e := entry(fmt.Sprintf("e%d", i), i, "x.example.org", "y.example.org")
		b.see(e)
		for _, a := range mustAssign(b, e) {
			if seen[a.Value] {
				t.Fatalf("%s twice", a.Value)
			}
			seen[a.Value] = true
		}
	}
	if len(seen) != 12000 {
		t.Errorf("%d addresses", len(seen))
	}
}
