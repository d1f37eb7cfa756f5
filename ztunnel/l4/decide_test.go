package l4_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// address encodes an istio.workload.Address given as prototext; IPs are written in the form of \ooo escapes.
func address(t *testing.T, text string) l4.Resource {
	t.Helper()
	var a workload.Address
	if err := prototext.Unmarshal([]byte(text), &a); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	encoded, err := anypb.New(&a)
	if err != nil {
		t.Fatal(err)
	}
	return l4.Resource{Name: a.GetWorkload().GetUid(), Any: encoded}
}

// pod is a workload resource: name, last byte of 10.0.0.x, and further fields.
func pod(name, ip, more string) string {
	b := netip.MustParseAddr(ip).As4()
	var escaped strings.Builder
	for _, octet := range b {
		escaped.WriteString(`\` + string([]byte{'0' + octet/64, '0' + octet/8%8, '0' + octet%8}))
	}
	return `workload { uid: "c//Pod/shop/` + name + `" name: "` + name + `" namespace: "shop" addresses: "` + escaped.String() +
		`" service_account: "` + name + `" workload_name: "` + name + `" ` + more + `}`
}

const (
	vipCart     = `addresses { address: "\012\140\000\001" }`
	cartService = `service { name: "cart" namespace: "shop" hostname: "cart.shop.svc.cluster.local" ` + vipCart +
		` ports { service_port: 80 target_port: 8080 } canonical: true `
	backsCart = `services { key: "shop/cart.shop.svc.cluster.local" value { ports { service_port: 80 target_port: 8080 } } } `
	wpService = `service { name: "wp" namespace: "shop" hostname: "wp.shop.svc.cluster.local" ports { service_port: 15008 target_port: 15008 } ` +
		`subject_alt_names: "spiffe://cluster.local/ns/shop/sa/extra" }`
	backsWP = `services { key: "shop/wp.shop.svc.cluster.local" value { ports { service_port: 15008 target_port: 15008 } } } `
	useWP   = `waypoint { hostname { namespace: "shop" hostname: "wp.shop.svc.cluster.local" } hbone_mtls_port: 15008 } `
)

func build(t *testing.T, texts ...string) *l4.State {
	t.Helper()
	store := l4.NewStore()
	var resources []l4.Resource
	for _, text := range texts {
		resources = append(resources, address(t, text))
	}
	if rejected := l4.NewBuilder(store).ApplyAddresses(resources, nil); len(rejected) > 0 {
		t.Fatal(rejected)
	}
	return store.Load()
}

func TestDecide(t *testing.T) {
	web, cart := pod("web", "10.0.0.1", "tunnel_protocol: HBONE"), pod("cart", "10.0.0.2", "tunnel_protocol: HBONE "+backsCart)
	wp := pod("wp-0", "10.0.0.9", backsWP)
	for _, tt := range []struct {
		name, source, dst string
		state             []string
		want              l4.Route // compared in kind, HBONE, target, authority
		sans              string
		err               error
	}{
		{name: "unknown passes", dst: "192.0.2.1:443", state: []string{web}, want: l4.Route{Target: ap("192.0.2.1:443")}},
		{
			name: "pod by tunnel", dst: "10.0.0.2:8080", state: []string{web, cart},
			want: l4.Route{Kind: l4.Direct, HBONE: true, Target: ap("10.0.0.2:15008"), Authority: "10.0.0.2:8080"},
			sans: "spiffe://cluster.local/ns/shop/sa/cart",
		},
		{
			name: "pod in plain TCP", dst: "10.0.0.3:1", state: []string{web, pod("old", "10.0.0.3", "")},
			want: l4.Route{Kind: l4.Direct, Target: ap("10.0.0.3:1")},
		},
		{
			name: "service port maps", dst: "10.96.0.1:80", state: []string{web, cart, cartService + "}"},
			want: l4.Route{Kind: l4.Direct, HBONE: true, Target: ap("10.0.0.2:15008"), Authority: "10.0.0.2:8080"},
		},
		{
			name: "no such service port", dst: "10.96.0.1:81", state: []string{web, cart, cartService + "}"},
			want: l4.Route{Target: ap("10.96.0.1:81")},
		},
		{name: "no endpoints", dst: "10.96.0.1:80", state: []string{web, cartService + "}"}, err: l4.ErrNoHealthyUpstream},
		{
			name: "unhealthy", dst: "10.96.0.1:80", err: l4.ErrNoHealthyUpstream,
			state: []string{web, pod("cart", "10.0.0.2", "status: UNHEALTHY "+backsCart), cartService + "}"},
		},
		{
			name: "unhealthy allowed", dst: "10.96.0.1:80", want: l4.Route{Kind: l4.Direct, Target: ap("10.0.0.2:8080")},
			state: []string{web, pod("cart", "10.0.0.2", "status: UNHEALTHY "+backsCart), cartService + "load_balancing { health_policy: ALLOW_ALL } }"},
		},
		{
			name: "named target port", dst: "10.96.0.1:90", want: l4.Route{Kind: l4.Direct, Target: ap("10.0.0.2:9999")},
			state: []string{web, cartService + "ports { service_port: 90 } }", pod("cart", "10.0.0.2",
				`services { key: "shop/cart.shop.svc.cluster.local" value { ports { service_port: 90 target_port: 9999 } } }`)},
		},
		{
			name: "service waypoint", dst: "10.96.0.1:80", state: []string{web, cart, cartService + useWP + "}", wp, wpService},
			want: l4.Route{Kind: l4.ServiceWaypoint, HBONE: true, Target: ap("10.0.0.9:15008"), Authority: "10.96.0.1:80"},
			sans: "spiffe://cluster.local/ns/shop/sa/extra,spiffe://cluster.local/ns/shop/sa/wp-0",
		},
		{name: "waypoint missing", dst: "10.96.0.1:80", state: []string{web, cart, cartService + useWP + "}"}, err: l4.ErrUnknownWaypoint},
		{
			name: "waypoint without instances", dst: "10.96.0.1:80", state: []string{web, cart, cartService + useWP + "}", wpService},
			err: l4.ErrNoHealthyUpstream,
		},
		{
			name: "workload waypoint", dst: "10.0.0.2:8080", state: []string{web, pod("cart", "10.0.0.2", "tunnel_protocol: HBONE "+useWP), wp, wpService},
			want: l4.Route{Kind: l4.WorkloadWaypoint, HBONE: true, Target: ap("10.0.0.9:15008"), Authority: "10.0.0.2:8080"},
		},
		{
			name: "from the waypoint itself", source: "c//Pod/shop/wp-0", dst: "10.0.0.2:8080",
			state: []string{pod("cart", "10.0.0.2", "tunnel_protocol: HBONE "+useWP), wp, wpService},
			want:  l4.Route{Kind: l4.Direct, HBONE: true, Target: ap("10.0.0.2:15008"), Authority: "10.0.0.2:8080"},
		},
		{name: "itself is plain", dst: "10.0.0.1:80", state: []string{web}, want: l4.Route{Kind: l4.Direct, Target: ap("10.0.0.1:80")}},
		{name: "own tunnel port", dst: "10.0.0.1:15008", state: []string{web}, err: l4.ErrLoop},
		{name: "own outbound port on loopback", dst: "127.0.0.1:15001", state: []string{web}, err: l4.ErrLoop},
		{
			name: "strict node", dst: "10.96.0.1:80", err: l4.ErrNoHealthyUpstream,
			state: []string{
				pod("web", "10.0.0.1", `node: "a"`), pod("cart", "10.0.0.2", `node: "b" `+backsCart),
				cartService + "load_balancing { routing_preference: NODE mode: STRICT } }",
			},
		},
		{
			name: "nearest zone", dst: "10.96.0.1:80", want: l4.Route{Kind: l4.Direct, Target: ap("10.0.0.4:8080")},
			state: []string{
				pod("web", "10.0.0.1", `locality { region: "r" zone: "z" }`), pod("far", "10.0.0.2", backsCart),
				pod("near", "10.0.0.4", `locality { region: "r" zone: "z" } `+backsCart),
				cartService + "load_balancing { routing_preference: REGION routing_preference: ZONE mode: FAILOVER } }",
			},
		},
		{
			name: "other network", dst: "10.96.0.1:80", err: l4.ErrCrossNetwork,
			state: []string{web, cartService + "}", pod("cart", "10.0.0.2", backsCart+
				`network: "n2" network_gateway { address { network: "n2" address: "\001\001\001\001" } hbone_mtls_port: 15008 }`)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := build(t, tt.state...)
			source := "c//Pod/shop/web"
			if tt.source != "" {
				source = tt.source
			}
			route, err := l4.Decide(s, l4.Conn{
				SourceWorkload: s.Workload(source), Source: ap("10.0.0.1:4711"), Dst: ap(tt.dst),
				Rand: func(uint64) uint64 { return 0 },
			})
			if !errors.Is(err, tt.err) || (err != nil) != (tt.err != nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			w := tt.want
			if route.Kind != w.Kind || route.HBONE != w.HBONE || route.Target != w.Target || route.Authority != w.Authority {
				t.Errorf("got %+v\nwant %+v", route, w)
			}
			if got := strings.Join(route.ExpectSANs, ","); tt.sans != "" && got != tt.sans {
				t.Errorf("expects %s, want %s", got, tt.sans)
			}
		})
	}
}

func TestDecideInbound(t *testing.T) {
	s := build(t, pod("cart", "10.0.0.2", backsCart), cartService+"}", pod("wp-0", "10.0.0.9", backsWP), wpService,
		pod("old", "10.0.0.5", useWP))
	for _, tt := range []struct {
		name, local, ip, authority string
		want                       string
		status                     int
	}{
		{"own address", "cart", "10.0.0.2", "10.0.0.2:8080", "10.0.0.2:8080", 0},
		{"another's address", "cart", "10.0.0.2", "10.0.0.5:8080", "", 400},
		{"waypoint's client", "wp-0", "10.0.0.9", "10.0.0.5:8080", "10.0.0.9:8080", 0},
		{"host name", "cart", "10.0.0.2", "cart.shop.svc.cluster.local:80", "10.0.0.2:8080", 0},
		{"host name, unknown port", "cart", "10.0.0.2", "cart.shop.svc.cluster.local:81", "", 503},
		{"host name of others", "wp-0", "10.0.0.9", "cart.shop.svc.cluster.local:80", "", 503},
		{"own port", "cart", "10.0.0.2", "10.0.0.2:15008", "", 503},
		{"no port", "cart", "10.0.0.2", "10.0.0.2", "", 400},
		{"port zero", "cart", "10.0.0.2", "10.0.0.2:0", "", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			route, err := l4.DecideInbound(s, l4.Inbound{Local: s.Workload("c//Pod/shop/" + tt.local), LocalIP: netip.MustParseAddr(tt.ip), Authority: tt.authority})
			var refusal *l4.Refusal
			if tt.status != 0 {
				if !errors.As(err, &refusal) || refusal.Status != tt.status {
					t.Fatalf("error %v, want status %d", err, tt.status)
				}
				return
			}
			if err != nil || route.Target.String() != tt.want {
				t.Errorf("got %v, %v; want %s", route.Target, err, tt.want)
			}
		})
	}
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
