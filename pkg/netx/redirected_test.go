package netx

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func listenUDP(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// What the kernel does with packets that were redirected is tested with the back ends of redirection, in the module cni.
func TestRedirectedAnswersFromWhatWasAsked(t *testing.T) {
	server, client, other := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.2:0")
	asked := other.LocalAddr().(*net.UDPAddr).AddrPort()
	opened := 0
	r, err := NewRedirected(server, func(from netip.AddrPort) (net.PacketConn, error) {
		opened++
		if from != asked {
			t.Errorf("a socket on %v, want %v", from, asked)
		}
		return other, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, 16)
	receive := func() string {
		t.Helper()
		if err := client.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, from, err := client.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		return from.String() + " " + string(buf[:n])
	}
	if _, err := client.WriteTo([]byte("?"), server.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	n, from, err := r.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "?" || from.String() != client.LocalAddr().String() {
		t.Fatalf("%q from %v, %v", buf[:n], from, err)
	}
	if _, err := r.WriteTo([]byte("plain"), from); err != nil {
		t.Fatal(err)
	}
	if got, want := receive(), server.LocalAddr().String()+" plain"; got != want || opened != 0 {
		t.Errorf("%q, want %q; %d sockets opened", got, want, opened)
	}
	from.(*asker).asked = asked
	for range 2 {
		if _, err := r.WriteTo([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		if got, want := receive(), asked.String()+" answer"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if opened != 1 {
		t.Errorf("%d sockets opened for one address", opened)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.WriteTo([]byte("late"), from); err == nil {
		t.Error("a closed one answers")
	}
}

func TestRedirectedKeepsFewSockets(t *testing.T) {
	open := map[netip.AddrPort]*net.UDPConn{}
	r, err := NewRedirected(listenUDP(t, "127.0.0.1:0"), func(from netip.AddrPort) (net.PacketConn, error) {
		open[from] = listenUDP(t, "127.0.0.1:0")
		return open[from], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := range 3 * maxAnswerers {
		if _, err := r.answerer(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(n))); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.answerers) > maxAnswerers {
		t.Errorf("%d sockets", len(r.answerers))
	}
	alive := 0
	for _, conn := range open {
		if conn.SetDeadline(time.Now()) == nil {
			alive++
		}
	}
	if alive != len(r.answerers) {
		t.Errorf("%d of %d sockets are closed, %d are in use", len(open)-alive, len(open), len(r.answerers))
	}
}
