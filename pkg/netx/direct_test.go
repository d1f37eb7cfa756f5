package netx_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// directPair is a connection on loopback, of which one end bypasses package net's calls.
func directPair(t *testing.T) (direct net.Conn, plain *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialled, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if direct, err = netx.Direct(dialled.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { direct.Close(); accepted.Close() })
	return direct, accepted.(*net.TCPConn)
}

func TestDirectCarriesBothWaysAtOnce(t *testing.T) {
	direct, plain := directPair(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // more than the sockets hold
	var group sync.WaitGroup
	for _, way := range []struct {
		from, to net.Conn
	}{{direct, plain}, {plain, direct}} {
		group.Go(func() {
			if n, err := way.from.Write(data); err != nil || n != len(data) {
				t.Errorf("wrote %d: %v", n, err)
			}
		})
		group.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read: %v", err)
			}
		})
	}
	group.Wait()
	if err := plain.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := direct.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the peer's end: %d, %v", n, err)
	}
}

func TestDirectHonoursDeadlinesAndClose(t *testing.T) {
	direct, plain := directPair(t)
	if err := direct.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := direct.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
	if err := direct.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := direct.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing what nobody reads: %v", err)
	}
	if err := direct.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() {
		_, err := direct.Read(make([]byte, 1))
		closed <- err
	}()
	direct.Close()
	if err := <-closed; !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		t.Errorf("reading from a connection that is closed: %v", err)
	}
	plain.Close()
}

func TestDirectTellsOfResets(t *testing.T) {
	direct, plain := directPair(t)
	if err := plain.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	plain.Close()
	if _, err := direct.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after a reset: %v", err)
	}
}

func TestIsReset(t *testing.T) {
	a, b := tcp.Pair(t)
	if netx.IsReset(a) {
		t.Error("an open connection")
	}
	b.CloseWrite()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if netx.IsReset(a) {
		t.Error("a connection whose other end only sends no more")
	}
	b.SetLinger(0)
	b.Close()
	wait.Until(t, 20*time.Second, "the reset is noticed", func() bool { return netx.IsReset(a) }, nil)
	a.Close()
	if !netx.IsReset(a) {
		t.Error("a connection that was closed here")
	}
}
