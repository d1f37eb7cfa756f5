package app_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

// handing gives the nodes of a bed, which hand over, time.
var handing = []string{"CONNECTION_TERMINATION_DEADLINE=60s"}

// replace starts a further proxy on a node, ends the first, and returns how long that took to leave.
func (b *bed) replace(i int, env ...string) time.Duration {
	b.t.Helper()
	name := []string{"node-a", "node-b"}[i]
	next := b.startNode(name, b.agents[i].socket, env...)
	next.waitReady(b.t)
	old := b.nodes[i]
	b.nodes[i] = next
	begin := time.Now()
	old.stop()
	if err := <-old.ended; err != nil {
		b.t.Error(err)
	}
	old.ended <- nil
	return time.Since(begin)
}

// ticking is an application that sends a line every few milliseconds, as a streaming call does.
func ticking(t *testing.T, b *bed) {
	t.Helper()
	podtest.Serve(t, b.server, "0.0.0.0:8081", func(conn net.Conn) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			if _, err := fmt.Fprintf(conn, "%d\n", n); err != nil {
				return
			}
			<-tick.C
		}
	})
}

// follow reads lines until ctx ends, each of which must be the next number, and keeps the longest gap between two.
func follow(ctx context.Context, conn net.Conn, longest *atomic.Int64) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	lines, last := bufio.NewReader(conn), time.Now()
	for want := 0; ; want++ {
		line, err := lines.ReadString('\n')
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d lines: %w", want, err)
		}
		if line != fmt.Sprintf("%d\n", want) {
			return fmt.Errorf("line %q, want %d", line, want)
		}
		now := time.Now()
		for gap := int64(now.Sub(last)); ; {
			before := longest.Load()
			if gap <= before || longest.CompareAndSwap(before, gap) {
				break
			}
		}
		last = now
	}
}

// upgraded opens connections of every kind, replaces both proxies twice, and tells what was dropped.
func upgraded(t *testing.T, b *bed, idle, streams int) {
	t.Helper()
	ticking(t, b)
	sleeping := make([]net.Conn, idle)
	for n := range sleeping {
		conn, err := b.call()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sleeping[n] = conn
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	var longest atomic.Int64
	var dropped, calls atomic.Int64
	for range streams {
		conn, err := b.dial("8081")
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			if err := follow(ctx, conn, &longest); err != nil {
				dropped.Add(1)
				t.Error("a stream:", err)
			}
		})
	}
	work.Go(func() {
		for ctx.Err() == nil {
			conn, err := b.call()
			calls.Add(1)
			if err == nil {
				err = echo(conn)
				conn.Close()
			}
			if err != nil && ctx.Err() == nil {
				dropped.Add(1)
				t.Error("a request:", err)
			}
		}
	})
	for n := range 4 {
		b.replace(n%2, handing...)
	}
	for n, conn := range sleeping {
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		if err := echo(conn); err != nil {
			dropped.Add(1)
			t.Errorf("idle connection %d: %v", n, err)
		}
	}
	stop()
	work.Wait()
	t.Logf("upgrade-dropped %d of %d idle, %d streaming, %d requests; longest gap %s", dropped.Load(), idle, streams, calls.Load(), time.Duration(longest.Load()))
}

// TestUpgradesDropNothing: tunnels and everything in them go on in the proxies that take the place of theirs.
func TestUpgradesDropNothing(t *testing.T) {
	b := newBed(t, handing...)
	upgraded(t, b, 1000, 50)
	b.log.Wait(t, "handed over", "an old instance has handed over")
}

// TestUpgradesMovePlainConnections: the same without a tunnel.
func TestUpgradesMovePlainConnections(t *testing.T) {
	b := newBed(t, handing...)
	b.plane.publishPlain("server", podtest.ServerIP, "node-b")
	b.plane.publishPlain("client", podtest.ClientIP, "node-a")
	wait.Until(t, 30*time.Second, "connections without a tunnel", func() bool {
		conn, err := b.call()
		if err != nil {
			return false
		}
		defer conn.Close()
		_, dump := b.nodes[0].get(t, b.nodes[0].addresses.Admin, "/config_dump")
		return strings.Contains(dump, `"protocol":"TCP"`) || strings.Contains(dump, `"protocol": "TCP"`)
	}, nil)
	upgraded(t, b, 100, 10)
}

// TestWithoutOurRecordsTunnelsDrain: a tunnel by crypto/tls stays with the old proxy until its time is up, and nothing else is harmed.
func TestWithoutOurRecordsTunnelsDrain(t *testing.T) {
	standard := []string{"HBONE_TRANSPORT=crypto-tls"}
	b := newBed(t, standard...)
	conn, err := b.call()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if took := b.replace(1, standard...); took < time.Second {
		t.Errorf("the old proxy left after %s, with a tunnel open", took)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Logf("the connection ended by %v", err)
	}
	if again, err := b.call(); err != nil {
		t.Error("after it:", err)
	} else {
		again.Close()
	}
}

// TestAHandoverWithoutASuccessorDrains: a proxy that nobody replaces ends as ever.
func TestAHandoverWithoutASuccessorDrains(t *testing.T) {
	b := newBed(t)
	conn, err := b.call()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b.nodes[1].stop()
	if err := <-b.nodes[1].ended; err != nil {
		t.Error(err)
	}
	b.nodes[1].ended <- nil
	b.log.Wait(t, "no successor on the node")
}
