package dns

import (
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// mesh builds a state of services and workloads.
func mesh(t *testing.T, addresses ...*workload.Address) *l4.State {
	t.Helper()
	store := l4.NewStore()
	var resources []l4.Resource
	for _, address := range addresses {
		encoded, err := anypb.New(address)
		if err != nil {
			t.Fatal(err)
		}
		resources = append(resources, l4.Resource{Name: address.GetWorkload().GetUid(), Any: encoded})
	}
	if rejected := l4.NewBuilder(store).ApplyAddresses(resources, nil); len(rejected) > 0 {
		t.Fatal(rejected)
	}
	return store.Load()
}

func service(namespace, hostname string, edit func(*workload.Service), vips ...string) *workload.Address {
	s := &workload.Service{Name: hostname, Namespace: namespace, Hostname: hostname}
	for _, vip := range vips {
		s.Addresses = append(s.Addresses, &workload.NetworkAddress{Address: netip.MustParseAddr(vip).AsSlice()})
	}
	if edit != nil {
		edit(s)
	}
	return &workload.Address{Type: &workload.Address_Service{Service: s}}
}

func endpoint(uid, of string, status workload.WorkloadStatus, ips ...string) *workload.Address {
	w := &workload.Workload{Uid: uid, Name: uid, Namespace: "data", Status: status, Services: map[string]*workload.PortList{of: {}}}
	for _, ip := range ips {
		w.Addresses = append(w.Addresses, netip.MustParseAddr(ip).AsSlice())
	}
	return &workload.Address{Type: &workload.Address_Workload{Workload: w}}
}

func TestResolve(t *testing.T) {
	state := mesh(t,
		service("shop", "reviews.shop.svc.cluster.local", nil, "10.96.0.1", "fd00::1"),
		service("other", "reviews.other.svc.cluster.local", nil, "10.96.0.2"),
		service("data", "db.data.svc.cluster.local", nil),
		endpoint("a", "data/db.data.svc.cluster.local", workload.WorkloadStatus_HEALTHY, "10.0.0.1", "fd00::a"),
		endpoint("b", "data/db.data.svc.cluster.local", workload.WorkloadStatus_HEALTHY, "10.0.0.2"),
		endpoint("c", "data/db.data.svc.cluster.local", workload.WorkloadStatus_UNHEALTHY, "10.0.0.3"),
		service("shop", "api.example.com", nil, "240.240.0.1"),
		service("shop", "*.wild.example.com", nil, "240.240.0.2"),
		service("other", "secret.example.com", func(s *workload.Service) { s.Visibility = workload.Service_NAMESPACE }, "240.240.0.3"),
		service("shop", "range.example.com", func(s *workload.Service) {
			s.Addresses = []*workload.NetworkAddress{{Address: []byte{10, 1, 0, 0}, Length: proto.Uint32(16)}}
		}),
		service("other", "twice.example.com", nil, "240.240.0.4"),
		service("third", "twice.example.com", func(s *workload.Service) { s.Canonical = true }, "240.240.0.5"),
		service("shop", "v4only.shop.svc.cluster.local", func(s *workload.Service) { s.IpFamilies = workload.IPFamilies_IPV4_ONLY }, "10.96.0.9", "fd00::9"),
	)
	settings := Settings{Domain: "cluster.local", IPv6: true}
	for _, test := range []struct {
		name  string
		v6    bool
		known bool
		cname string
		addrs []string
	}{
		{name: "reviews", known: true, addrs: []string{"10.96.0.1"}},
		{name: "reviews.other", known: true, addrs: []string{"10.96.0.2"}},
		{name: "reviews.other.svc", known: true, addrs: []string{"10.96.0.2"}},
		{name: "reviews.shop.svc.cluster.local", v6: true, known: true, addrs: []string{"fd00::1"}},
		{name: "reviews.other.svc.cluster.local", v6: true, known: true},
		{name: "reviews.other.shop.svc.cluster.local", known: true, cname: "reviews.other", addrs: []string{"10.96.0.2"}},
		{name: "db.data", known: true, addrs: []string{"10.0.0.1", "10.0.0.2"}},
		{name: "db.data", v6: true, known: true, addrs: []string{"fd00::a"}},
		{name: "api.example.com", known: true, addrs: []string{"240.240.0.1"}},
		{name: "api.example.com.shop.svc.cluster.local", known: true, cname: "api.example.com", addrs: []string{"240.240.0.1"}},
		{name: "x.y.wild.example.com", known: true, addrs: []string{"240.240.0.2"}},
		{name: "x.wild.example.com.cluster.local", known: true, addrs: []string{"240.240.0.2"}},
		{name: "wild.example.com"},
		{name: "secret.example.com"},
		{name: "range.example.com"},
		{name: "nothing.example.com"},
		{name: "twice.example.com", known: true, addrs: []string{"240.240.0.5"}},
		{name: "v4only", v6: true, known: true},
	} {
		got := settings.Resolve(state, Client{Namespace: "shop"}, test.name, test.v6)
		var want []netip.Addr
		for _, ip := range test.addrs {
			want = append(want, netip.MustParseAddr(ip))
		}
		if got.Known != test.known || got.CNAME != test.cname || !slices.Equal(got.Addrs, want) {
			t.Errorf("%s (IPv6 %v): %+v, want %+v", test.name, test.v6, got, test)
		}
	}
}

func FuzzCandidates(f *testing.F) {
	f.Add("a.b.shop.svc.cluster.local")
	f.Fuzz(func(t *testing.T, name string) {
		for _, c := range candidates(name, "shop", "cluster.local") {
			wildcards(c.host)
		}
	})
}
