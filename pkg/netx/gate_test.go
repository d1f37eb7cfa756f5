package netx_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// again is a second descriptor of a socket, as another process has it.
func again(t *testing.T, c *net.TCPConn) *net.TCPConn {
	t.Helper()
	file, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	own, err := netx.HostNS(netx.Options{}).Adopt(file)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// TestRelaysMoveUnderLoad: two sockets are relayed by one relay after the other, some of which stop and go on; no byte is lost.
func TestRelaysMoveUnderLoad(t *testing.T) {
	client, down := tcp.Pair(t)
	up, server := tcp.Pair(t)
	data := make([]byte, 48<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	var apps sync.WaitGroup
	moved := make(chan struct{}) // closed by the first move, before which not all is sent
	first := sync.OnceFunc(func() { close(moved) })
	for _, end := range []*net.TCPConn{client, server} {
		apps.Go(func() {
			half := len(data) / 2
			if _, err := end.Write(data[:half]); err != nil {
				t.Error(err)
			}
			<-moved
			if _, err := end.Write(data[half:]); err != nil {
				t.Error(err)
			}
			if err := end.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		apps.Go(func() {
			got, err := io.ReadAll(end)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var count netx.Counters
	gate := netx.NewGate(netx.Way{}, netx.Way{})
	moves := 0
	for over := false; !over; {
		done := make(chan error, 1)
		go func() { done <- netx.RelayThrough(ctx, down, up, &count, gate) }()
		for n := 0; ; n++ {
			if err := gate.Stop(ctx); err != nil {
				if err := <-done; err != nil {
					t.Error(err)
				}
				over = true
				first()
				break
			}
			if n < 3 {
				gate.Thaw()
				continue
			}
			sent, received := gate.State()
			nextDown, nextUp := again(t, down), again(t, up)
			gate.Leave()
			if err := <-done; !errors.Is(err, netx.ErrMoved) {
				t.Fatal(err)
			}
			down.Close()
			up.Close()
			down, up, gate = nextDown, nextUp, netx.NewGate(sent, received)
			moves++
			first()
			break
		}
	}
	apps.Wait()
	if moves == 0 || count.Sent.Load() != uint64(len(data)) || count.Received.Load() != uint64(len(data)) {
		t.Errorf("%d moves, %d and %d bytes counted", moves, count.Sent.Load(), count.Received.Load())
	}
}

// TestAnIdleRelayStops: at once, and its sockets are untouched by it.
func TestAnIdleRelayStops(t *testing.T) {
	client, down := tcp.Pair(t)
	up, server := tcp.Pair(t)
	gate := netx.NewGate(netx.Way{}, netx.Way{})
	done := make(chan error, 1)
	go func() { done <- netx.RelayThrough(t.Context(), down, up, nil, gate) }()
	if err := gate.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := server.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes passed a relay that stands still", n)
	}
	gate.Thaw()
	server.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	client.CloseWrite()
	server.CloseWrite()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := gate.Stop(t.Context()); err == nil {
		t.Error("a relay that is over was stopped")
	}
}

// TestARelayThatCannotStopGoesOn: its receiver does not read, so that bytes are on their way inside the kernel.
func TestARelayThatCannotStopGoesOn(t *testing.T) {
	client, down := tcp.Pair(t)
	up, server := tcp.Pair(t)
	gate := netx.NewGate(netx.Way{}, netx.Way{})
	done := make(chan error, 1)
	go func() { done <- netx.RelayThrough(t.Context(), down, up, nil, gate) }()
	data := make([]byte, 32<<20)
	go func() {
		_, _ = client.Write(data)
		_ = client.CloseWrite()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	stopped := gate.Stop(ctx) == nil
	if stopped {
		gate.Thaw() // it was quick enough
	}
	if n, err := io.Copy(io.Discard, server); n != int64(len(data)) || err != nil {
		t.Errorf("%d of %d bytes, %v", n, len(data), err)
	}
	server.CloseWrite()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestForeignSocketsAreNotAdopted(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if c, err := netx.HostNS(netx.Options{}).Adopt(file); err == nil {
		c.Close()
		t.Error("a Unix socket was adopted")
	}
}

// TestARelayThatEndsIsNotStopped: from when it closes its sockets on; before, it stands still with both of them open.
func TestARelayThatEndsIsNotStopped(t *testing.T) {
	for range 60 {
		client, down := tcp.Pair(t)
		up, server := tcp.Pair(t)
		gate := netx.NewGate(netx.Way{}, netx.Way{})
		done := make(chan error, 1)
		go func() { done <- netx.RelayThrough(t.Context(), down, up, nil, gate) }()
		for _, end := range []*net.TCPConn{client, server} {
			go func() { _ = end.CloseWrite() }()
		}
		for gate.Stop(t.Context()) == nil {
			for _, c := range []*net.TCPConn{down, up} {
				again(t, c).Close()
			}
			gate.Thaw()
			time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond) // or it would hardly move
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		client.Close()
		server.Close()
	}
}
