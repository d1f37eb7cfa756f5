package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// upstream is the node's own resolver: it knows example.org, and answers large TXT records.
func upstream(t *testing.T, ns *netx.NS, addr string) {
	t.Helper()
	packets, err := ns.ListenPacket(t.Context(), "udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := ns.Listen(t.Context(), "tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		response := new(dns.Msg).SetReply(query)
		response.Authoritative = true
		name := query.Question[0].Name
		switch {
		case name == "example.org." && query.Question[0].Qtype == dns.TypeA:
			response.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 7}, A: net.IPv4(192, 0, 2, 1)}}
		case query.Question[0].Qtype == dns.TypeTXT:
			for range 20 {
				text := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{string(make([]byte, 200))}}
				response.Answer = append(response.Answer, text)
			}
			if _, isUDP := w.RemoteAddr().(*net.UDPAddr); isUDP {
				response.Truncate(dns.MinMsgSize)
			}
		default:
			response.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(response)
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: streams, Handler: handler}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
}

// curl is the workload that asks.
func curl() *l4.Workload { return &l4.Workload{Namespace: "shop", Name: "curl"} }

// configOf knows the service web of the namespace shop, and asks the pair's server for the rest.
func configOf(t *testing.T, identify func(context.Context) *l4.Workload) Config {
	t.Helper()
	store := l4.NewStore()
	address, err := anypb.New(&workload.Address{Type: &workload.Address_Service{Service: &workload.Service{
		Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local", Canonical: true,
		Addresses: []*workload.NetworkAddress{{Address: netip.MustParseAddr("10.96.0.7").AsSlice()}},
		Ports:     []*workload.Port{{ServicePort: 80, TargetPort: 8080}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	l4.NewBuilder(store).ApplyAddresses([]l4.Resource{{Name: "shop/web.shop.svc.cluster.local", Any: address}}, nil)
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Settings: Settings{Domain: "cluster.local", IPv6: true}, Store: store, Metrics: metrics, Log: slog.New(slog.DiscardHandler),
		Forwarder: NewForwarder([]netip.AddrPort{netip.MustParseAddrPort(podtest.ServerIP + ":53")}), Identify: identify,
	}
}

func startServer(t *testing.T) (ask func(network, name string, kind uint16) *dns.Msg, known *atomic.Bool) {
	t.Helper()
	pair := podtest.NewPair(t)
	pod, node := podtest.Open(t, pair.Client, 0x539), podtest.Open(t, pair.Server, 0)
	podtest.StopRedirecting(t, pair.Server)
	upstream(t, node, podtest.ServerIP+":53")
	known = &atomic.Bool{}
	known.Store(true)
	server, err := Start(t.Context(), configOf(t, func(context.Context) *l4.Workload {
		if !known.Load() {
			return nil
		}
		return curl()
	}), Pod{Namespace: "shop", Name: "curl"}, pod)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return func(network, name string, kind uint16) *dns.Msg {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		conn, err := pod.Dial(ctx, network, netip.MustParseAddrPort("127.0.0.1:"+Port), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		response, _, err := (&dns.Client{Timeout: 30 * time.Second}).ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(name, kind), &dns.Conn{Conn: conn})
		if err != nil {
			t.Fatalf("%s %s: %v", network, name, err)
		}
		return response
	}, known
}

func TestServerAnswersAndForwards(t *testing.T) {
	ask, known := startServer(t)
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range []struct {
			name    string
			kind    uint16
			rcode   int
			answers int
			own     bool
		}{
			{"web.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, 1, true},
			{"web.", dns.TypeA, dns.RcodeSuccess, 1, true},
			{"WEB.Shop.", dns.TypeA, dns.RcodeSuccess, 1, true},
			{"web.shop.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, 0, true},
			{"example.org.", dns.TypeA, dns.RcodeSuccess, 1, false},
			{"nowhere.example.", dns.TypeA, dns.RcodeNameError, 0, false},
			{"web.shop.svc.cluster.local.", dns.TypeMX, dns.RcodeNameError, 0, false},
		} {
			response := ask(network, tt.name, tt.kind)
			if response.Rcode != tt.rcode || len(response.Answer) != tt.answers || response.Authoritative != tt.own {
				t.Errorf("%s %s %s: %v", network, tt.name, dns.TypeToString[tt.kind], response)
			}
			if tt.own && tt.answers == 1 && (response.Answer[0].Header().Ttl != 30 || response.Answer[0].(*dns.A).A.String() != "10.96.0.7") {
				t.Errorf("answer %v", response.Answer[0])
			}
		}
	}
	if response := ask("udp", "big.example.", dns.TypeTXT); !response.Truncated {
		t.Error("a large answer over UDP is not marked as cut")
	}
	if response := ask("tcp", "big.example.", dns.TypeTXT); response.Truncated || len(response.Answer) != 20 {
		t.Errorf("a large answer over TCP: %d records", len(response.Answer))
	}
	known.Store(false)
	if response := ask("udp", "web.", dns.TypeA); response.Rcode != dns.RcodeServerFailure {
		t.Errorf("a pod that is not known: %v", response)
	}
}

func FuzzResolve(f *testing.F) {
	store := l4.NewStore()
	settings := Settings{Domain: "cluster.local", IPv6: true}
	for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "*.example.com", "", ".", "a..b", "web.shop.svc.cluster.local.shop.svc.cluster.local"} {
		f.Add(name, "shop", true)
	}
	f.Fuzz(func(t *testing.T, name, namespace string, v6 bool) {
		if answer := settings.Resolve(store.Load(), Client{Namespace: namespace}, name, v6); answer.Known {
			t.Errorf("an empty mesh knows %q", name)
		}
	})
}
