//go:build ktls

package tlsrec

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// ownClient and ownServer are what most tests are about: with this build tag, connections whose kernel seals what they send. A kernel that
// does not fails the tests.
func ownClient(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	return sealing(Client(ctx, nc, config))
}

func ownServer(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	return sealing(Server(ctx, nc, config))
}

func sealing(c Secured, err error) (Secured, error) {
	if own, ok := c.(*Conn); ok && err == nil && own.raw != nil { // the others are wrapped, to deliver in pieces
		err = own.SealInKernel()
	}
	return c, err
}

func TestTheKernelSeals(t *testing.T) {
	if err := KernelSeals(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// again is c with its socket under another descriptor, as a process sees it to which it was handed over.
func again(t *testing.T, c *Conn) *Conn {
	t.Helper()
	nc := duplicate(t, c.nc)
	state, err := c.Export()
	if err != nil {
		t.Fatal(err)
	}
	c.nc.Close()
	encoded := state.Append(nil)
	state.Erase()
	if encoded[0] != kernelVersion {
		t.Fatalf("the state is of version %d, which builds accept that would seal it twice", encoded[0])
	}
	parsed, err := ParseState(encoded)
	if err != nil {
		t.Fatal(err)
	}
	next, err := Resume(nc, parsed)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func duplicate(t *testing.T, nc net.Conn) net.Conn {
	t.Helper()
	file, err := nc.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	second, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	return second
}

// Data is on its way both ways while the connection moves: with a socket that is full, with keys that change by themselves and because
// the peer asks, and what a deadline kept back.
func TestSealedConnectionsMove(t *testing.T) {
	const size, moves = 6 << 20, 12
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a, b := tcp.Pair(t)
			client, peer := shaken(t, a, b, ownClient, Server)
			c, other := client.(*Conn), peer.(*Conn)
			c.tx.limit = 50 // records
			received, echoed := make(chan error, 1), make(chan error, 1)
			go func() {
				check := newSequence(seed)
				random := mrand.New(mrand.NewPCG(seed, 3))
				buf := make([]byte, 50_000)
				for {
					n, err := other.Read(buf)
					_, _ = check.Write(buf[:n])
					if errors.Is(err, io.EOF) {
						break
					}
					if err == nil && random.IntN(20) == 0 {
						time.Sleep(time.Millisecond) // so that the socket fills
						err = other.UpdateKeys(true)
					}
					if err != nil {
						received <- err
						return
					}
				}
				if check.bad || check.n != size {
					received <- fmt.Errorf("%d of %d bytes, changed: %v", check.n, size, check.bad)
				}
				close(received)
			}()
			data := mrand.NewChaCha8([32]byte{byte(seed)})
			buf := make([]byte, size)
			_, _ = data.Read(buf)
			moved := 0
			for left := buf; len(left) > 0; {
				c.SetReadDeadline(time.Now().Add(time.Millisecond)) // whoever reads sees KeyUpdates
				if n, err := c.Read(make([]byte, 10)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(n, err)
				}
				c.SetWriteDeadline(time.Now().Add(2 * time.Millisecond))
				n, err := c.Write(left[:min(len(left), size/moves)])
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				left = left[n:]
				c = again(t, c)
				c.tx.limit = 50
				moved++
			}
			c.SetWriteDeadline(time.Time{})
			if _, err := c.Write(nil); err != nil { // what is left
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			close(echoed)
			if err := <-received; err != nil {
				t.Error(err)
			}
			if other.rx.updates < 3 {
				t.Errorf("the keys changed %d times", other.rx.updates)
			}
			t.Logf("%d moves, %d changes of keys", moved, other.rx.updates)
		})
	}
}

// A state goes on only over a socket that is sealed as it says, with its own keys: data never leaves as it is, and never sealed twice.
func TestSealedStatesFitTheirSockets(t *testing.T) {
	plainA, plainB := tcp.Pair(t)
	plain, _ := shaken(t, plainA, plainB, Client, standardServer)
	sealedA, sealedB := tcp.Pair(t)
	one, _ := shaken(t, sealedA, sealedB, ownClient, standardServer)
	otherA, otherB := tcp.Pair(t)
	other, _ := shaken(t, otherA, otherB, ownClient, standardServer)
	sockets := map[string]net.Conn{"plain": plainA, "sealed": sealedA, "other": otherA}
	for name, c := range map[string]*Conn{"plain": plain.(*Conn), "sealed": one.(*Conn), "other": other.(*Conn)} {
		state, err := c.Export()
		if err != nil {
			t.Fatal(err)
		}
		encoded := state.Append(nil)
		state.Erase()
		for socket, nc := range sockets {
			parsed, err := ParseState(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Resume(duplicate(t, nc), parsed); (err == nil) != (socket == name) {
				t.Errorf("a state of %s over the socket of %s: %v", name, socket, err)
			}
		}
	}
}

// What leaves the socket are records: nothing of what is written can be read.
func TestNothingLeavesUnsealed(t *testing.T) {
	a, b := tcp.Pair(t)
	heard := &overheard{Conn: b}
	client, peer := shaken(t, a, heard, ownClient, standardServer)
	secret := bytes.Repeat([]byte("this is not for everybody "), 4000)
	go func() {
		_, _ = client.Write(secret)
		_ = client.(*Conn).UpdateKeys(false)
		_, _ = client.Write(secret)
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, append(secret, secret...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if len(heard.all) < 2*len(secret) || bytes.Contains(heard.all, []byte("not for everybody")) {
		t.Errorf("%d bytes went over the wire, readable: %v", len(heard.all), bytes.Contains(heard.all, []byte("not for everybody")))
	}
}

// overheard keeps what is read.
type overheard struct {
	net.Conn
	all []byte
}

// Read implements net.Conn.
func (l *overheard) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.all = append(l.all, p[:n]...)
	return n, err
}

// What the kernel has taken arrives, also when the connection is closed while its peer does not read yet.
func TestWhatTheKernelHasTakenArrives(t *testing.T) {
	for _, piece := range []int{100, 16384, 100_000} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			a, b := tcp.Pair(t)
			client, peer := shaken(t, a, b, ownClient, standardServer)
			c := client.(*Conn)
			data := make([]byte, piece)
			total := 0
			for {
				c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				n, err := c.Write(data)
				total += n
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			accepted := total - len(c.tx.unsent)
			c.tx.unsent = nil
			c.Close()
			time.Sleep(100 * time.Millisecond)
			got, err := io.Copy(io.Discard, peer)
			if int(got) < accepted {
				t.Errorf("%d of %d bytes, %v", got, accepted, err)
			}
		})
	}
}
