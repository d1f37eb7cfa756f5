package netx_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// What is read comes in a buffer of the pool; the end and a deadline come without one.
func TestDirectLends(t *testing.T) {
	direct, plain := directPair(t)
	lender, ok := direct.(netx.Lender)
	if !ok {
		t.Fatalf("%T does not lend", direct)
	}
	type read struct {
		b   []byte
		n   int
		err error
	}
	reads := make(chan read)
	lend := func() {
		b, n, err := lender.ReadLent(netx.SmallBuffer)
		reads <- read{b, n, err}
	}
	go lend()
	if _, err := plain.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := <-reads
	if got.err != nil || string(got.b[:got.n]) != "hello" || len(got.b) < netx.SmallBuffer {
		t.Fatalf("%d bytes of %d: %v", got.n, len(got.b), got.err)
	}
	netx.Pool.Put(got.b)
	go lend()
	direct.SetReadDeadline(time.Unix(1, 0))
	if got = <-reads; !errors.Is(got.err, os.ErrDeadlineExceeded) || got.b != nil {
		t.Errorf("after the deadline: %d bytes, %v", got.n, got.err)
	}
	direct.SetReadDeadline(time.Time{})
	go lend()
	plain.CloseWrite()
	if got = <-reads; !errors.Is(got.err, io.EOF) || got.b != nil {
		t.Errorf("at the end: %d bytes, %v", got.n, got.err)
	}
	// Reads into memory of the caller's are as before.
	direct, plain = directPair(t)
	go func() { _, _ = plain.Write([]byte("xy")) }()
	b := make([]byte, 2)
	if _, err := io.ReadFull(direct, b); err != nil || string(b) != "xy" {
		t.Errorf("%q, %v", b, err)
	}
}
