package proxy

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

// fromPort opens a connection to an application of the server as a peer without a tunnel; port 0 leaves its port to the kernel.
func (b *bed) fromPort(t *testing.T, ip string, port int, to string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	peer := podtest.Open(t, b.pair.Client, 0)
	var conn net.Conn
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip), Port: port}}
	dialer.Control = func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			// The proxy's mark keeps it out of the redirection on its own side.
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 0x539); err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}
		})
		if err == nil {
			err = cerr
		}
		return err
	}
	err := peer.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp", to)
		return err
	})
	if err != nil {
		t.Fatalf("from port %d to %s: %v", port, to, err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	greeting := make([]byte, len("hello "+ip+"\n"))
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "hello "+ip+"\n" {
		t.Fatalf("from port %d to %s: %q, %v", port, to, greeting, err)
	}
	return conn
}

// TestOurPortsDoNotHidePeers: a peer without a tunnel opens connections from ports that the kernel could also choose for ours to the
// application, which come from the same address. One that met one of ours would never be redirected, and hang.
func TestOurPortsDoNotHidePeers(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	for _, ns := range []*netx.NS{b.client, b.server} {
		// Four ports: three connections of the peer and three of ours cannot all differ.
		if err := ns.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40003"), 0o600)
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		b.fromPort(t, clientIP, 0, serverIP+":"+appPort)
	}
}

// TestOnePortOfAPeerReachesAllOfAPod: as kernels do, a peer uses one source port for connections to several ports of the pod, which
// are redirected to one.
func TestOnePortOfAPeerReachesAllOfAPod(t *testing.T) {
	b := newBed(t)
	for _, addr := range []string{"[::]:8080", "[::]:8081"} {
		podtest.Greet(t, b.server, addr)
	}
	for _, tc := range []struct{ from, to string }{{clientIP, serverIP}, {podtest.ClientIP6, podtest.ServerIP6}} {
		var conns []net.Conn
		for _, port := range []string{"8080", "8081"} {
			conns = append(conns, b.fromPort(t, tc.from, 45000, net.JoinHostPort(tc.to, port)))
		}
		for n, conn := range conns {
			if err := echoes(conn); err != nil {
				t.Errorf("connection %d from %s: %v", n, tc.from, err)
			}
		}
	}
}
