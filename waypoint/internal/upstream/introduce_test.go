package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// toldApp answers with the client that it was told of. It keeps count of the connections.
type toldApp struct {
	address netip.AddrPort

	mu    sync.Mutex // guards conns
	conns int
}

func newToldApp(t *testing.T) *toldApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &toldApp{address: l.Addr().(*net.TCPAddr).AddrPort()}
	var work sync.WaitGroup
	var open sync.Map
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool {
			c.(net.Conn).Close()
			return true
		})
		work.Wait()
	})
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, nil)
			work.Go(func() {
				defer c.Close()
				a.serve(c)
			})
		}
	})
	return a
}

func (a *toldApp) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conns
}

func (a *toldApp) serve(c net.Conn) {
	a.mu.Lock()
	a.conns++
	a.mu.Unlock()
	header, err := proxyproto.Read(c)
	if err != nil {
		return
	}
	for r := bufio.NewReader(c); ; {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, request.Body)
		text := fmt.Sprint(header.Source, " ", header.Destination)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	}
}

func TestHostsAreToldOfTheirClients(t *testing.T) {
	for _, version := range []proxyproto.Version{proxyproto.V1, proxyproto.V2} {
		a := newToldApp(t)
		conf := cluster("c", l7.UpstreamHTTP1)
		conf.Socket.Proxy = version
		m := newManager(t)
		c := m.Update(config(conf, a.address))["c"]
		client := func(n int) *l7.Conn {
			return &l7.Conn{
				Source:      netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), uint16(n)),
				Destination: netip.MustParseAddrPort("198.51.100.1:80"),
			}
		}
		var all sync.WaitGroup
		for n := 1; n <= 4; n++ {
			all.Go(func() {
				for range 5 {
					h := c.Pick(&Choice{Rand: global{}, Conn: client(n)})
					got, err := getFrom(t.Context(), h)
					if want := fmt.Sprintf("203.0.113.1:%d 198.51.100.1:80", n); err != nil || got != want {
						t.Errorf("the host was told %q, want %q: %v", got, want, err)
					}
				}
			})
		}
		all.Wait()
		if n := a.count(); n != 4 {
			t.Errorf("%d connections for 4 clients", n)
		}
		// Load and health are those of the host, whichever client it serves.
		whole := c.view.Load().hosts[0]
		part := c.Pick(&Choice{Rand: global{}, Conn: client(1)})
		if part == whole || part.root != whole || part.Endpoint() != whole.Endpoint() || whole.state().RqTotal != 20 {
			t.Errorf("%+v", whole.state())
		}
		if again := c.Pick(&Choice{Rand: global{}, Conn: client(2), Tried: []*Host{part}, Attempts: 1}); again == nil {
			t.Error("the only host is not tried again")
		}
		// A host that goes lets go of the connections of all clients.
		m.Update(config(conf, newToldApp(t).address))
		until(t, "all connections are closed", func() bool { return whole.stats.cxActive.Load() == 0 })
		if n := len(c.all()); n != 1 {
			t.Errorf("%d hosts are left", n)
		}
	}
}
