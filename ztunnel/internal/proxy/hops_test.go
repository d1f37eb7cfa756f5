package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

const (
	// hopVIP is the service behind the waypoint, directVIP one without.
	hopVIP, directVIP = "10.77.1.1", "10.77.1.2"
	firstIP, secondIP = "10.77.0.11", "10.77.0.12"
	domain            = ".shop.svc.cluster.local"
)

// hopBed is a pod with its proxy, and a namespace where next hops come and go. Of the two endpoints of each service the first is drawn
// as long as it is not avoided: only it has weight.
type hopBed struct {
	*bed
	metrics *prometheus.Registry
}

func newHopBed(t *testing.T, window time.Duration) *hopBed {
	t.Helper()
	b := &hopBed{bed: bareBed(t), metrics: prometheus.NewRegistry()}
	podtest.StopRedirecting(t, b.pair.Server)
	for _, ip := range []string{firstIP, secondIP} {
		podtest.Run(t, "", "ip", "netns", "exec", nameOf(b.pair.Server), "ip", "addr", "add", ip+"/24", "dev", "eth0")
	}
	podtest.Run(t, "", "ip", "netns", "exec", nameOf(b.pair.Client), "ip", "route", "add", "10.77.1.0/24", "dev", "eth0")
	b.apply(t, pod("client", clientIP, "node-a", true))
	waypoint := &workload.GatewayAddress{
		Destination:   &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{Namespace: "shop", Hostname: "hop" + domain}},
		HboneMtlsPort: l4.HBONEPort,
	}
	b.service(t, &workload.Service{Name: "behind", Addresses: vip(hopVIP), Waypoint: waypoint, Ports: ports(80, 8080)})
	b.service(t, &workload.Service{Name: "hop", Ports: ports(l4.HBONEPort, l4.HBONEPort)})
	b.service(t, &workload.Service{Name: "direct", Addresses: vip(directVIP), Ports: ports(80, 8080)})
	b.endpoint(t, "first", firstIP, 5)
	b.start(t, "client", b.pair.Client, b.metrics, Deps{Config: Config{Node: "node-a", IPv6: true, Transport: transport, RepeatWindow: window}})
	return b
}

func nameOf(path string) string { return path[len("/run/netns/"):] }

func vip(ip string) []*workload.NetworkAddress {
	return []*workload.NetworkAddress{{Address: netip.MustParseAddr(ip).AsSlice()}}
}

func ports(service, target uint32) []*workload.Port {
	return []*workload.Port{{ServicePort: service, TargetPort: target}}
}

func (b *hopBed) service(t *testing.T, s *workload.Service) {
	t.Helper()
	s.Namespace, s.Hostname = "shop", s.Name+domain
	a := &workload.Address{Type: &workload.Address_Service{Service: s}}
	if rejected := b.builder.ApplyAddresses([]l4.Resource{encode(t, "shop/"+s.GetHostname(), a)}, nil); len(rejected) > 0 {
		t.Fatal(rejected)
	}
}

// endpoint is an instance of the waypoint, and an endpoint of the service without one.
func (b *hopBed) endpoint(t *testing.T, name, ip string, weight uint32) {
	t.Helper()
	b.apply(t, b.instance(name, ip, weight))
}

func (*hopBed) instance(name, ip string, weight uint32) *workload.Address {
	w := pod(name, ip, "node-b", true)
	w.GetWorkload().Capacity = wrapperspb.UInt32(weight)
	w.GetWorkload().Services = map[string]*workload.PortList{
		"shop/hop" + domain:    {Ports: ports(l4.HBONEPort, l4.HBONEPort)},
		"shop/direct" + domain: {Ports: ports(80, 8080)},
	}
	return w
}

// hop is a next hop at an address.
type hop struct {
	identity string
	// raw has the connection before TLS, secure after it; nil goes on. What they return ends the connection.
	raw    func(net.Conn)
	secure func(net.Conn)
	status int // of the answer, 0 accepts

	asked    atomic.Int32 // CONNECTs that were answered
	connects atomic.Int32 // connections
}

// serve makes a hop listen, until the test ends.
func (b *hopBed) serve(t *testing.T, ip string, h *hop) {
	t.Helper()
	listener, err := b.server.Listen(t.Context(), "tcp", ip+":15008")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			h.connects.Add(1)
			open.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				b.serveHop(ctx, h, conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		open.Wait()
	})
}

func (b *hopBed) serveHop(ctx context.Context, h *hop, conn net.Conn) {
	if h.raw != nil {
		h.raw(conn)
		return
	}
	id := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: h.identity}
	secured := tls.Server(conn, certs.HBONEServerConfig(func() (*certs.Workload, error) { return b.certs.Get(ctx, id) }))
	if secured.HandshakeContext(ctx) != nil {
		return
	}
	if h.secure != nil {
		h.secure(secured)
		return
	}
	_ = hbone.ServeConn(ctx, secured, h, hbone.ServerConfig{})
}

// ServeCONNECT implements hbone.Handler: it tells its name and sends everything back.
func (h *hop) ServeCONNECT(_ context.Context, _ *hbone.Request, w hbone.ResponseWriter) {
	h.asked.Add(1)
	if h.status != 0 {
		w.Refuse(h.status, nil)
		return
	}
	s, err := w.Accept(nil)
	if err != nil {
		return
	}
	fmt.Fprintf(s, "%s\n", h.identity)
	_, _ = io.Copy(s, s)
	_ = s.CloseWrite()
}

// afterConnect reads until a CONNECT with its early bytes is here, then writes frames and ends. What still comes is read: else the end
// would be a reset, which overtakes the frames.
func afterConnect(asked *atomic.Int32, early int, frames []byte) func(net.Conn) {
	return func(c net.Conn) {
		preface := make([]byte, len(h2.Preface))
		if _, err := io.ReadFull(c, preface); err != nil {
			return
		}
		_, _ = c.Write(h2.AppendSettings(nil))
		opened, got := false, 0
		for !opened || got < early {
			head := make([]byte, h2.FrameHeaderLen)
			if _, err := io.ReadFull(c, head); err != nil {
				return
			}
			size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
			if _, err := io.CopyN(io.Discard, c, size); err != nil {
				return
			}
			switch h2.FrameType(head[3]) {
			case h2.FrameHeaders:
				opened = true
			case h2.FrameData:
				got += int(size)
			}
		}
		asked.Add(1)
		_, _ = c.Write(frames)
		if secured, ok := c.(*tls.Conn); ok && secured.CloseWrite() == nil {
			_, _ = io.Copy(io.Discard, c)
		}
	}
}

// open is a connection of the client's application.
func (b *hopBed) open(t *testing.T, ip string) *net.TCPConn {
	t.Helper()
	conn, err := b.connect(t, ip)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (b *hopBed) connect(t *testing.T, ip string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := b.client.Dial(ctx, "tcp", netip.MustParseAddrPort(ip+":80"), netip.Addr{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn.(*net.TCPConn), nil
}

// greeting reads who answers, and checks that all that was sent comes back.
func greeting(t *testing.T, conn netx.Stream, want string) {
	t.Helper()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// refused opens a connection that nobody answers. It is reset, at times before the application knows that it was there: an orderly end
// would be an empty answer.
func (b *hopBed) refused(t *testing.T, ip string) {
	t.Helper()
	var got []byte
	conn, err := b.connect(t, ip)
	if err == nil {
		got, err = io.ReadAll(conn)
	}
	if len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("answered with %q, %v; want a reset", got, err)
	}
}

// count is the sum of a counter over all its labels.
func (b *hopBed) count(t *testing.T, name string) (sum int) {
	t.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += int(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}
