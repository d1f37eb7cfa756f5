package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

// asleep returns when the one connection there is, which greets and echoes, sleeps in both proxies.
func (b *bed) asleep(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := echoes(conn); err != nil { // the client's proxy does not wait for its application's first bytes any more
		t.Fatal(err)
	}
	wait.Until(t, time.Minute, "the connection sleeps in both proxies", func() bool { return b.sleepers.Asleep() == 2 }, nil)
}

// Who sleeps is there for everybody else, and goes on when its application speaks.
func TestIdleConnectionsSleep(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	conn, _, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.asleep(t, conn)
		for n, p := range b.proxies {
			if inbound, outbound := p.Connections(); len(inbound) != n || len(outbound) != 1-n {
				t.Errorf("proxy %d lists %d and %d connections", n, len(inbound), len(outbound))
			}
		}
		if got := b.count(t, "istio_ztunnel_workload_connections", "server"); got != 2 { // and its tunnel
			t.Errorf("the account is charged with %v connections", got)
		}
	}
	conn.Close()
	b.log.Wait(t, `direction="outbound" bytes_sent=52 bytes_recv=36`, `direction="inbound" bytes_sent=52 bytes_recv=36`)
	wait.Until(t, time.Minute, "the account is given back", func() bool {
		return b.count(t, "istio_ztunnel_workload_connections", "server") == 1
	}, nil)
}

// Drains end those who sleep, and wait for that.
func TestDrainsEndSleepers(t *testing.T) {
	for n, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			b := newBed(t)
			podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
			conn, _, err := b.dial(t)
			if err != nil {
				t.Fatal(err)
			}
			b.asleep(t, conn)
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			b.proxies[n].Drain(ended)
			if inbound, outbound := b.proxies[n].Connections(); len(inbound)+len(outbound) > 0 {
				t.Errorf("%d and %d connections are left", len(inbound), len(outbound))
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the application sees %v", err)
			}
			b.log.Wait(t, "connection complete") // the end of the tunnel may be the first that it sees
		})
	}
}

// What waits for an application keeps so little on its stack that this takes 4 KiB. A stack of which more than 1248 bytes are in use is not
// made smaller than 8: who has added to the functions under [Instance.carry], or called them from deeper down, is to take that elsewhere.
func TestStacksOfIdleConnections(t *testing.T) {
	b := bareBed(t)
	awake, err := netx.NewSleepers(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(awake.Close)
	b.sleepers = awake // all wait on goroutines
	b.apply(t, pod("client", clientIP, "node-a", true), pod("server", serverIP, "node-b", true))
	for i, name := range []string{"client", "server"} {
		b.start(t, name, []string{b.pair.Client, b.pair.Server}[i], prometheus.NewRegistry(), Deps{
			Config: Config{Node: "node-" + string(rune('a'+i)), IPv6: true, Transport: transport},
		})
	}
	listener, err := b.server.Listen(t.Context(), "tcp", "0.0.0.0:"+appPort)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var ends []net.Conn // the applications have no goroutines
	defer func() {
		for _, c := range ends {
			c.Close()
		}
	}()
	open := func() {
		t.Helper()
		near, err := b.client.Dial(t.Context(), "tcp", netip.MustParseAddrPort(serverIP+":"+appPort), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		far, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, near, far)
		for _, way := range [][2]net.Conn{{near, far}, {far, near}, {near, far}} {
			way[1].SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := way[0].Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := way[1].Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 10 {
		open()
	}
	before := stacks()
	const conns = 200
	for range conns {
		open()
	}
	waiting, most := uint64(2*conns), uint64(6<<10)
	if raced {
		most *= 2
	}
	if each := (stacks() - before) / waiting; each > most {
		t.Errorf("each waits on a stack of %d bytes", each)
	} else {
		t.Logf("each waits on a stack of %d bytes", each)
	}
}

// stacks is how much memory the stacks of all goroutines take.
func stacks() uint64 {
	for range 6 { // each makes a stack smaller by half, if it can
		runtime.GC()
	}
	sample := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
