package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// shared opens UDP sockets on one address, in order; the first is given a port by the kernel.
func shared(t *testing.T, ns *NS, network string, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	p, err := ns.ListenPacket(t.Context(), network, at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(*net.UDPConn)
}

// received is how many packets a socket has by now.
func received(t *testing.T, conn *net.UDPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for {
			if _, _, err := syscall.Recvfrom(int(fd), make([]byte, 16), syscall.MSG_DONTWAIT); err != nil {
				return
			}
			n++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const packets = 64

// send sends packets to an address, each from a socket of its own: the kernel chooses by source.
func send(t *testing.T, to netip.AddrPort) {
	t.Helper()
	for range packets {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

var families = []struct{ network, loopback string }{{"udp4", "127.0.0.1"}, {"udp6", "::1"}}

func TestTheNewestSocketPrecedes(t *testing.T) {
	ns := HostNS(Options{})
	for _, f := range families {
		t.Run(f.network, func(t *testing.T) {
			first := shared(t, ns, f.network, netip.AddrPortFrom(netip.MustParseAddr(f.loopback), 0))
			at := first.LocalAddr().(*net.UDPAddr).AddrPort()
			second := shared(t, ns, f.network, at)
			send(t, at)
			if a, b := received(t, first), received(t, second); a == 0 || b == 0 || a+b != packets {
				t.Fatalf("the test is void: shared out %d and %d", a, b)
			}
			if err := Precede(ns, second); err != nil {
				t.Fatal(err)
			}
			send(t, at)
			if a, b := received(t, first), received(t, second); a != 0 || b != packets {
				t.Errorf("%d to the first, %d to the second", a, b)
			}
			third := shared(t, ns, f.network, at)
			if err := Precede(ns, third); err != nil {
				t.Fatal(err)
			}
			send(t, at)
			if a, b, c := received(t, first), received(t, second), received(t, third); a+b != 0 || c != packets {
				t.Errorf("%d, %d and %d", a, b, c)
			}
			first.Close()
			second.Close()
			send(t, at)
			if c := received(t, third); c != packets {
				t.Errorf("%d to the last", c)
			}
			// A newcomer that does not ask for it takes nothing away from a socket that is alone.
			if err := Precede(ns, third); err != nil {
				t.Fatal(err)
			}
			fourth := shared(t, ns, f.network, at)
			send(t, at)
			if c, d := received(t, third), received(t, fourth); c != packets || d != 0 {
				t.Errorf("%d to the older, %d to the newer", c, d)
			}
		})
	}
}

func TestASocketWithdraws(t *testing.T) {
	ns := HostNS(Options{})
	for _, f := range families {
		t.Run(f.network, func(t *testing.T) {
			first := shared(t, ns, f.network, netip.AddrPortFrom(netip.MustParseAddr(f.loopback), 0))
			at := first.LocalAddr().(*net.UDPAddr).AddrPort()
			second := shared(t, ns, f.network, at)
			send(t, at)
			if second.Close(); received(t, first) == 0 {
				t.Fatal("the test is void")
			}
			// The first precedes, of which the second knows nothing, as one of an earlier version.
			if err := Precede(ns, first); err != nil {
				t.Fatal(err)
			}
			second = shared(t, ns, f.network, at)
			send(t, at)
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the test's time is over"))
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- Withdraw(ctx, first) }()
			// One packet is read after the other, each a little later.
			read, buf := 0, make([]byte, 16)
			var from net.Addr
			for {
				first.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				_, a, err := first.ReadFrom(buf)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					select {
					case err := <-done:
						if err != nil {
							t.Fatal(err)
						}
					default:
						continue
					}
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				read, from = read+1, a
			}
			if n := received(t, first); n != 0 {
				t.Errorf("%d packets were left", n)
			}
			if b := received(t, second); read != packets || b != 0 {
				t.Errorf("%d and %d", read, b)
			}
			send(t, at)
			if a, b := received(t, first), received(t, second); a != 0 || b != packets {
				t.Errorf("afterwards %d to the one that has withdrawn, %d to the other", a, b)
			}
			if _, err := first.WriteTo([]byte("!"), from); err != nil {
				t.Error("an answer:", err)
			}
		})
	}
}

func TestWithdrawingWaitsForWhoReads(t *testing.T) {
	ns := HostNS(Options{})
	conn := shared(t, ns, "udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	send(t, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	over := errors.New("nobody reads")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if err := Withdraw(ctx, conn); !errors.Is(err, over) {
		t.Error(err)
	}
}

func TestOnlyUDPSharesAnAddress(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("%s/socket", t.TempDir()), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Precede(HostNS(Options{}), l); err == nil {
		t.Error("a Unix socket precedes")
	}
	if err := Withdraw(t.Context(), l); err == nil {
		t.Error("a Unix socket withdraws")
	}
}
