package netx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// testNS makes a namespace with loopback up, in which port 7001 is redirected to 15001.
func testNS(t *testing.T) *NS {
	t.Helper()
	name := fmt.Sprintf("netxt-%d", os.Getpid())
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	run(t, "ip", "-n", name, "link", "set", "lo", "up")
	run(t, "ip", "-n", name, "route", "add", "local", "10.9.0.0/16", "dev", "lo")
	run(t, "ip", "netns", "exec", name, "nft", `table inet t { chain o { type nat hook output priority -100; tcp dport 7001 redirect to :15001; }; }`)
	f, err := os.Open("/var/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := NewNS(f, Options{Mark: 0x539})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func TestNamespace(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ns := testNS(t)
	_, home := HostNS(Options{}).Identity()
	if _, ino := ns.Identity(); ino == home || ino == 0 {
		t.Fatal("same identity as the host's namespace")
	}
	l, err := ns.Listen(ctx, "tcp", "[::]:15001")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err := net.DialTimeout("tcp", "127.0.0.1:15001", time.Second); err == nil {
		c.Close()
		t.Fatal("the listener is in the host's namespace")
	}
	for _, tc := range []struct{ dst, local, want string }{
		{"127.0.0.1:7001", "", "127.0.0.1:7001"},
		{"[::1]:7001", "", "[::1]:7001"},
		{"127.0.0.1:15001", "", "127.0.0.1:15001"},
		{"10.9.0.1:7001", "10.9.3.4", "10.9.0.1:7001"},
	} {
		var local netip.Addr
		if tc.local != "" {
			local = netip.MustParseAddr(tc.local)
		}
		c, err := ns.Dial(ctx, "tcp", netip.MustParseAddrPort(tc.dst), local)
		if err != nil {
			t.Errorf("%+v: %v", tc, err)
			continue
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got, err := OriginalDst(s.(*net.TCPConn))
		if err != nil || got.String() != tc.want {
			t.Errorf("%+v: original destination %v, %v", tc, got, err)
		}
		if from := unmap(s.RemoteAddr().(*net.TCPAddr).AddrPort()).Addr(); local.IsValid() && from != local {
			t.Errorf("%+v: connection comes from %v", tc, from)
		}
		c.Close()
		s.Close()
	}
}

// TestRelaySockets covers splice: bytes, half close, counters; and the cause of a cancelled relay.
func TestRelaySockets(t *testing.T) {
	host := HostNS(Options{})
	l, err := host.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pair := func() (a, b *net.TCPConn) {
		c, err := host.Dial(t.Context(), "tcp", netip.MustParseAddrPort(l.Addr().String()), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); s.Close() })
		return c.(*net.TCPConn), s.(*net.TCPConn)
	}
	client, down := pair()
	up, server := pair()
	var count Counters
	done := make(chan error, 1)
	go func() { done <- Relay(context.Background(), down, up, &count) }()
	go func() { io.Copy(server, server); server.CloseWrite() }()
	go func() { client.Write(make([]byte, 9<<20)); client.CloseWrite() }()
	n, err := io.Copy(io.Discard, client)
	if err != nil || n != 9<<20 {
		t.Errorf("%d bytes back, %v", n, err)
	}
	if err := <-done; err != nil || count.Sent.Load() != 9<<20 || count.Received.Load() != 9<<20 {
		t.Errorf("relay: %v, counted %d/%d", err, count.Sent.Load(), count.Received.Load())
	}
	_, down = pair()
	up, _ = pair()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(io.ErrNoProgress)
	if err := Relay(ctx, down, up, nil); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("cancelled relay: %v", err)
	}
}
