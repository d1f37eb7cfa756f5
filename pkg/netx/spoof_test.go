package netx

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestKernelPorts(t *testing.T) {
	for _, tc := range []struct {
		text        string
		least, most int
	}{
		{"32768\t60999\n", 32768, 60999},
		{"40000 40003", 40000, 40003},
		{"60999 32768", 0, 65535},
		{"-5 70", 0, 65535},
		{"", 0, 65535},
		{"a b", 0, 65535},
	} {
		if least, most := kernelPorts(tc.text); least != tc.least || most != tc.most {
			t.Errorf("%q: %d, %d", tc.text, least, most)
		}
	}
}

func TestSpansTakeTurns(t *testing.T) {
	var p spoofPorts
	p.once.Do(func() {
		p.spans[0].set(61000, 65535)
		p.spans[1].set(leastPort, 32767)
	})
	inUse := &net.OpError{Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
	above, below := p.take(), 0
	if above < 61000 {
		t.Fatalf("the first port is %d", above)
	}
	if p.refused(above, nil) || p.refused(above, errors.New("refused")) || p.refused(0, inUse) || !p.refused(above, inUse) {
		t.Fatal("the wrong errors speak against a port")
	}
	for range crowdedFor {
		if below = p.take(); below < leastPort || below > 32767 {
			t.Fatalf("port %d while the first span is crowded", below)
		}
	}
	if port := p.take(); port < 61000 {
		t.Errorf("port %d after that", port)
	}
	p.refused(above, inUse)
	p.refused(below, inUse)
	if port := p.take(); port != 0 {
		t.Errorf("port %d while both are crowded", port)
	}
	var none spoofPorts
	none.once.Do(func() {
		none.spans[0].set(65536, 65535)
		none.spans[1].set(leastPort, 1023)
	})
	if port := none.take(); port != 0 {
		t.Errorf("port %d where the kernel uses all", port)
	}
}

// TestForeignConnectionsUsePortsOfTheirOwn: outside of the kernel's range, until nothing is left there.
func TestForeignConnectionsUsePortsOfTheirOwn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ns := testNS(t)
	// 315 ports above the range, 316 below it.
	if err := ns.Do(func() error { return os.WriteFile(portRange, []byte("16700 65220"), 0o600) }); err != nil {
		t.Fatal(err)
	}
	l, err := ns.Listen(ctx, "tcp", "127.0.0.1:15001")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	from := netip.MustParseAddr("10.9.3.4")
	outside := 0
	for n := range 700 {
		c, err := ns.Dial(ctx, "tcp", netip.MustParseAddrPort("127.0.0.1:15001"), from)
		if err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		open = append(open, c)
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
		if port := c.LocalAddr().(*net.TCPAddr).Port; port < 16700 || port > 65220 {
			outside++
		}
	}
	if outside != 315+316 {
		t.Errorf("%d connections from outside the range, want all %d ports of it", outside, 315+316)
	}
}
