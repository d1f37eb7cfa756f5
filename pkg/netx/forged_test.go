package netx

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestForgedAnswers: an answer leaves from a port that somebody else has, and the kernel, which checks what a datagram says of itself, hands
// it to who has asked there.
func TestForgedAnswers(t *testing.T) {
	ns := testNS(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			own := netip.MustParseAddr(host)
			other, err := ns.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(own, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			asked := other.LocalAddr().(*net.UDPAddr).AddrPort()
			client, err := ns.Dial(t.Context(), "udp", asked, netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			f, err := listenForged(t.Context(), ns, asked)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := client.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"", "?", "an answer", strings.Repeat("long ", 1000)} {
				if n, err := f.WriteTo([]byte(want), client.LocalAddr()); n != len(want) || err != nil {
					t.Fatalf("%d of %d bytes: %v", n, len(want), err)
				}
				buf := make([]byte, 1<<16)
				if n, err := client.Read(buf); string(buf[:n]) != want || err != nil {
					t.Errorf("%q arrives, want %q: %v", buf[:n], want, err)
				}
			}
		})
	}
	from, other := netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")
	if _, err := forge(from, from, make([]byte, 1<<16)); err == nil {
		t.Error("a datagram of more than 64 KiB was made")
	}
	if _, err := forge(from, other, nil); err == nil {
		t.Error("a datagram from one family to the other was made")
	}
}
