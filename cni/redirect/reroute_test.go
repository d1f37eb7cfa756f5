package redirect_test

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// The virtual machine behind the interface net1 of the pod, and addresses beyond that only its default route knows.
const (
	vmV4, vmGatewayV4, farV4 = "10.8.0.2", "10.8.0.1", "203.0.113.7"
	vmV6, vmGatewayV6, farV6 = "fd08::2", "fd08::1", "2001:db8::7"
)

func newVM(t *testing.T, b *bed) *os.File {
	t.Helper()
	vm := nettest.New(t)
	nettest.LinkAs(t, vm, b.pod, "eth0", "net1", []string{vmV4 + "/24", vmV6 + "/64"}, []string{vmGatewayV4 + "/24", vmGatewayV6 + "/64"})
	nettest.ServeUDP(nettest.ListenUDP(t, b.pod, vmGatewayV4+":53"), "poddns")
	nettest.ServeUDP(nettest.ListenUDP(t, b.pod, "["+vmGatewayV6+"]:53"), "poddns")
	nettest.Serve(nettest.Listen(t, b.pod, vmGatewayV4+":53"), "poddns")
	return vm
}

func TestVirtualInterfacesAreRerouted(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		vm := newVM(t, b)
		asked := plan.Pod{Reroute: "net1,not-there-yet"}
		if _, early := b.backend.(redirect.Early); early {
			err := b.backend.Apply(b.pod, plan.Plan(asked, plan.DefaultConfig()))
			if !errors.Is(err, redirect.ErrUnsuitable) {
				t.Errorf("sklookup serves a pod with a virtual interface: %v", err)
			}
			return
		}
		virtualInterfacesAreRerouted(t, b, vm, asked)
	})
}

func virtualInterfacesAreRerouted(t *testing.T, b *bed, vm *os.File, asked plan.Pod) {
	t.Helper()
	none := nettest.Socket{}
	dns := func(what, server, answer string) {
		t.Helper()
		got, err := nettest.Exchange(nettest.Dial(t, vm, "udp", net.JoinHostPort(server, "53"), none), "?")
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		want(t, what, got, answer+"?")
	}
	before := nettest.Dial(t, vm, "tcp", vmGatewayV4+":8080", none)
	if _, err := nettest.Read(before); err != nil {
		t.Fatal(err)
	}
	beforeDNS := nettest.Dial(t, vm, "tcp", vmGatewayV4+":53", none)
	if _, err := nettest.Read(beforeDNS); err != nil {
		t.Fatal(err)
	}

	b.apply(t, plan.Pod{})
	want(t, "not named", greet(t, vm, vmGatewayV4+":8080", none), "zt-in "+vmV4+" "+vmGatewayV4+":8080")
	dns("dns of an interface that is not named", vmGatewayV4, "poddns")

	for range 2 {
		rules := b.apply(t, asked)
		if d, err := b.backend.Inspect(b.pod, rules); err != nil || len(d) > 0 {
			t.Errorf("drift: %q, %v", d, err)
		}
		if d, err := b.backend.Inspect(b.pod, plan.Plan(plan.Pod{Reroute: "net2"}, plan.DefaultConfig())); err != nil || len(d) == 0 {
			t.Errorf("another interface shows no drift: %v", err)
		}
	}
	for _, f := range []struct{ vm, far, gateway, pod, peer string }{
		{vmV4, farV4, vmGatewayV4, podV4, peerV4}, {vmV6, farV6, vmGatewayV6, podV6, peerV6},
	} {
		at := net.JoinHostPort
		want(t, "far", greet(t, vm, at(f.far, "80"), none), "zt-out "+f.vm+" "+at(f.far, "80"))
		want(t, "the pod itself", greet(t, vm, at(f.gateway, "8080"), none), "zt-out "+f.vm+" "+at(f.gateway, "8080"))
		want(t, "a tunnel", greet(t, vm, at(f.far, "15008"), none), "zt-out "+f.vm+" "+at(f.far, "15008"))
		want(t, "dns over tcp", greet(t, vm, at(f.far, "53"), none), "zt-dns "+f.vm+" "+at(f.far, "53"))
		dns("dns", f.far, "zt-dns")
		// The pod's own ways are as without.
		want(t, "outbound", greet(t, b.pod, at(f.peer, "8080"), none), "zt-out "+f.pod+" "+at(f.peer, "8080"))
		want(t, "inbound", greet(t, b.peer, at(f.pod, "8080"), none), "zt-in "+f.peer+" "+at(f.pod, "8080"))
	}
	for _, c := range []struct {
		conn net.Conn
		who  string
	}{{before, "app"}, {beforeDNS, "poddns"}} {
		if got, err := nettest.Exchange(c.conn, "still"); err != nil || got != c.who+"still" {
			t.Errorf("a connection from before says %q, %v", got, err)
		}
	}

	b.apply(t, plan.Pod{Reroute: asked.Reroute, DNS: plan.Off, BypassInbound: true})
	want(t, "without dns and inbound", greet(t, vm, farV4+":80", none), "zt-out "+vmV4+" "+farV4+":80")
	want(t, "dns over tcp, not captured", greet(t, vm, farV4+":53", none), "zt-out "+vmV4+" "+farV4+":53")
	dns("dns, not captured", vmGatewayV4, "poddns")

	b.apply(t, asked)
	captured := nettest.Dial(t, vm, "tcp", farV4+":80", none)
	if _, err := nettest.Read(captured); err != nil {
		t.Fatal(err)
	}
	if err := b.backend.Remove(b.pod); err != nil {
		t.Fatal(err)
	}
	want(t, "removed", greet(t, vm, vmGatewayV4+":8080", none), "app "+vmV4+" "+vmGatewayV4+":8080")
	want(t, "removed, dns over tcp", greet(t, vm, vmGatewayV4+":53", none), "poddns "+vmV4+" "+vmGatewayV4+":53")
	dns("removed, dns", vmGatewayV4, "poddns")
	if got, err := nettest.Exchange(captured, "still"); err != nil || got != "zt-outstill" {
		t.Errorf("a captured connection says %q, %v", got, err)
	}
}
