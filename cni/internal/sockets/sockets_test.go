package sockets_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/internal/sockets"
)

func TestConnectionsAreListedAndCut(t *testing.T) {
	pod, peer := nettest.New(t), nettest.New(t)
	nettest.Link(t, pod, peer, []string{"10.5.0.2/24", "fd05::2/64"}, []string{"10.5.0.1/24", "fd05::1/64"})
	nettest.Serve(nettest.Listen(t, pod, ":8080"), "app") // an IPv6 socket that takes IPv4 too
	nettest.Serve(nettest.Listen(t, peer, "0.0.0.0:9090"), "peer")
	none := nettest.Socket{}
	in4, in6 := nettest.Dial(t, peer, "tcp", "10.5.0.2:8080", none), nettest.Dial(t, peer, "tcp", "[fd05::2]:8080", none)
	out := nettest.Dial(t, pod, "tcp", "10.5.0.1:9090", none)
	self := nettest.Dial(t, pod, "tcp", "10.5.0.2:8080", none)
	loop := nettest.Dial(t, pod, "tcp", "127.0.0.1:8080", none)
	for _, c := range []interface{ Read([]byte) (int, error) }{in4, in6, out, self, loop} {
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := sockets.Established(pod)
	if err != nil {
		t.Fatal(err)
	}
	var inbound []sockets.Connection
	remotes := map[string]bool{}
	for _, c := range list {
		remotes[c.Remote.String()] = true
		if c.Inbound {
			inbound = append(inbound, c)
		}
	}
	if len(list) != 3 || len(inbound) != 2 || !remotes["10.5.0.1:9090"] || !remotes[in4.LocalAddr().String()] || !remotes[in6.LocalAddr().String()] {
		t.Fatalf("%+v", list)
	}
	for range 2 { // the second time there is nothing left
		for _, c := range inbound {
			if err := sockets.Cut(pod, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []interface{ Read([]byte) (int, error) }{in4, in6} {
		if n, err := c.Read(make([]byte, 100)); err == nil {
			t.Errorf("still open: %d bytes", n)
		}
	}
	if got, err := nettest.Exchange(out, "!"); err != nil || got != "peer!" {
		t.Errorf("another connection was cut: %q, %v", got, err)
	}
	if list, err = sockets.Established(pod); err != nil || len(list) != 1 {
		t.Errorf("%v, %+v", err, list)
	}
}
