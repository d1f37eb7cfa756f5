package l4_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

func TestRejectedResourceKeepsTheLastGoodAndTheRestApplies(t *testing.T) {
	store := l4.NewStore()
	b := l4.NewBuilder(store)
	b.ApplyAddresses([]l4.Resource{address(t, pod("a", "10.0.0.1", `node: "good"`))}, nil)
	rejected := b.ApplyAddresses([]l4.Resource{
		address(t, pod("a", "10.0.0.1", "tunnel_protocol: LEGACY_ISTIO_MTLS")), address(t, pod("b", "10.0.0.2", "")),
	}, nil)
	if len(rejected) != 1 || rejected[0].Name != "c//Pod/shop/a" || !strings.Contains(rejected[0].Reason, "LEGACY_ISTIO_MTLS") {
		t.Errorf("rejected %v", rejected)
	}
	s := store.Load()
	if w := s.Workload("c//Pod/shop/a"); w == nil || w.Node != "good" {
		t.Errorf("last good version is %+v", w)
	}
	if s.WorkloadByIP("", netip.MustParseAddr("10.0.0.2")) == nil {
		t.Error("the valid resource of the batch did not apply")
	}
}

func TestOlderStatesDoNotChange(t *testing.T) {
	store := l4.NewStore()
	b := l4.NewBuilder(store)
	b.ApplyAddresses([]l4.Resource{address(t, pod("a", "10.0.0.1", backsCart)), address(t, cartService+"}")}, nil)
	old := store.Load()
	b.ApplyAddresses([]l4.Resource{address(t, pod("b", "10.0.0.2", backsCart))}, []string{"c//Pod/shop/a", "shop/cart.shop.svc.cluster.local"})
	select {
	case <-old.Superseded():
	default:
		t.Error("the older state is not marked as superseded")
	}
	key := l4.ServiceKey{Namespace: "shop", Hostname: "cart.shop.svc.cluster.local"}
	for _, check := range []struct {
		state     *l4.State
		endpoints string
		vip       bool
	}{{old, "a", true}, {store.Load(), "b", false}} {
		var names []string
		for _, w := range check.state.Endpoints(key).List() {
			names = append(names, w.Name)
		}
		if got := strings.Join(names, ","); got != check.endpoints {
			t.Errorf("endpoints %s, want %s", got, check.endpoints)
		}
		if got := check.state.ServiceByVIP("", netip.MustParseAddr("10.96.0.1"), "shop") != nil; got != check.vip {
			t.Errorf("service found by address: %v, want %v", got, check.vip)
		}
	}
	if w := store.Load().WorkloadByIP("", netip.MustParseAddr("10.0.0.1")); w != nil {
		t.Errorf("removed workload still answers: %+v", w)
	}
}

func TestOneAddressTwice(t *testing.T) {
	const entry = `workload { uid: "c/networking.istio.io/WorkloadEntry/shop/e" name: "e" namespace: "shop" addresses: "\012\000\000\001" tunnel_protocol: HBONE }`
	const host = `workload { uid: "c//Pod/shop/host" name: "host" namespace: "shop" addresses: "\012\000\000\001" network_mode: HOST_NETWORK }`
	s := build(t, entry, pod("z", "10.0.0.1", ""), host)
	if w := s.WorkloadByIP("", netip.MustParseAddr("10.0.0.1")); w.Name != "z" {
		t.Errorf("found %s, want the pod", w.Name)
	}
	s = build(t, pod("a", "10.0.0.1", ""), pod("z", "10.0.0.1", "tunnel_protocol: HBONE"))
	if w := s.WorkloadByIP("", netip.MustParseAddr("10.0.0.1")); w.Name != "z" {
		t.Errorf("found %s, want the one with a tunnel", w.Name)
	}
	if s := build(t, host); s.WorkloadByIP("", netip.MustParseAddr("10.0.0.1")) != nil {
		t.Error("a workload in the host network was found by address")
	}
}

func TestServicesOfOneAddress(t *testing.T) {
	service := func(namespace, more string) string {
		return fmt.Sprintf(`service { name: "s" namespace: %q hostname: "s.test" %s }`, namespace, more)
	}
	ip := netip.MustParseAddr("10.96.0.1")
	const wide, narrow = `addresses { address: "\012\140\000\000" length: 16 } `, `addresses { address: "\012\140\000\000" length: 24 } `
	for _, tt := range []struct {
		name, client, want string
		state              []string
	}{
		{"first", "x", "a", []string{service("b", vipCart), service("a", vipCart)}},
		{"canonical", "x", "b", []string{service("a", vipCart), service("b", vipCart+"canonical: true")}},
		{"own namespace", "c", "c", []string{service("a", vipCart+"canonical: true"), service("c", vipCart)}},
		{"not visible", "x", "b", []string{service("a", vipCart+"visibility: NAMESPACE canonical: true"), service("b", vipCart)}},
		{"exact before range", "c", "a", []string{service("a", vipCart), service("c", narrow)}},
		{"longest range", "x", "b", []string{service("a", wide), service("b", narrow)}},
		{"own range before longest", "a", "a", []string{service("a", wide), service("b", narrow)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := build(t, tt.state...).ServiceByVIP("", ip, tt.client)
			if got == nil || got.Namespace != tt.want {
				t.Errorf("got %+v, want the one of namespace %s", got, tt.want)
			}
		})
	}
}

func TestManyChangesAgreeWithAMap(t *testing.T) {
	store := l4.NewStore()
	b := l4.NewBuilder(store)
	want := map[string]bool{}
	for n := range 2000 {
		name := fmt.Sprint("p", n*7919%500)
		uid := "c//Pod/shop/" + name
		if want[uid] {
			b.ApplyAddresses(nil, []string{uid})
			delete(want, uid)
			continue
		}
		b.ApplyAddresses([]l4.Resource{address(t, pod(name, fmt.Sprintf("10.1.%d.%d", n%5, n%250), backsCart))}, nil)
		want[uid] = true
	}
	var got []string
	for w := range store.Load().Workloads() {
		if !want[w.UID] {
			t.Errorf("%s should be gone", w.UID)
		}
		got = append(got, w.UID)
	}
	if len(got) != len(want) || store.Load().WorkloadCount() != len(want) || !slices.IsSorted(got) {
		t.Errorf("%d workloads, want %d in order", len(got), len(want))
	}
}

func TestWaitReturnsTheStateThatFits(t *testing.T) {
	store := l4.NewStore()
	go l4.NewBuilder(store).ApplyAddresses([]l4.Resource{address(t, pod("a", "10.0.0.1", ""))}, nil)
	s, err := store.Wait(t.Context(), func(s *l4.State) bool { return s.WorkloadCount() == 1 })
	if err != nil || s.WorkloadCount() != 1 {
		t.Fatalf("%v, %v", s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Wait(ctx, func(*l4.State) bool { return false }); err == nil {
		t.Error("waiting did not end with its context")
	}
}

// BenchmarkOneChange replaces one pod among n: its cost must hardly grow with n.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			builder := l4.NewBuilder(l4.NewStore())
			t := &testing.T{}
			var resources []l4.Resource
			for i := range n {
				resources = append(resources, address(t, pod(fmt.Sprint("p", i), fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "")))
			}
			builder.ApplyAddresses(resources, nil)
			changed := []l4.Resource{resources[n/2]}
			for b.Loop() {
				builder.ApplyAddresses(changed, nil)
			}
		})
	}
}
