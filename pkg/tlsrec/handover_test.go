package tlsrec

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// metered is a socket of which no more than so many bytes can be read; then it is as if its deadline had passed.
type metered struct {
	*net.TCPConn
	left int // -1 is any number
}

// Read implements net.Conn.
func (m *metered) Read(p []byte) (int, error) {
	if m.left < 0 {
		return m.TCPConn.Read(p)
	}
	if m.left == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := m.TCPConn.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}

// traveller is a connection that goes on in another Conn, as in another process, whenever so many bytes have come.
type traveller struct {
	t       *testing.T
	c       *Conn
	step    int
	moves   int
	updates uint64 // of the peer's keys, before the last move
}

func travel(t *testing.T, c *Conn, step int) *traveller {
	t.Helper()
	tr := &traveller{t: t, c: c, step: step}
	tr.move()
	return tr
}

// move exports the connection and resumes it over another descriptor of its socket.
func (tr *traveller) move() {
	tr.t.Helper()
	tr.moves++
	tr.updates += tr.c.rx.updates
	old := tr.c.NetConn().(*metered)
	file, err := old.File()
	if err != nil {
		tr.t.Fatal(err)
	}
	defer file.Close()
	again, err := net.FileConn(file)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { again.Close() })
	state, err := tr.c.Export()
	if err != nil {
		tr.t.Fatal(err)
	}
	if _, err := tr.c.Read(make([]byte, 1)); !errors.Is(err, ErrExported) {
		tr.t.Fatalf("read after its export: %v", err)
	}
	encoded := state.Append(nil)
	state.Erase()
	old.Close()
	parsed, err := ParseState(encoded)
	clear(encoded)
	if err == nil {
		tr.c, err = Resume(&metered{again.(*net.TCPConn), tr.step}, parsed)
	}
	if err != nil {
		tr.t.Fatal(err)
	}
}

// until reads, and moves whenever its step is done, until all of want has come; or, without it, until the peer has changed its keys so
// often.
func (tr *traveller) until(want string, updates uint64) {
	tr.t.Helper()
	got := ""
	buf := make([]byte, 100)
	for end := time.Now().Add(time.Minute); len(got) < len(want) || want == "" && tr.updates+tr.c.rx.updates < updates; {
		m := tr.c.NetConn().(*metered)
		if m.left == 0 {
			tr.move()
			continue
		}
		tr.c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := tr.c.Read(buf)
		got += string(buf[:n])
		var timeout net.Error
		if err != nil && !errors.As(err, &timeout) || time.Now().After(end) {
			tr.t.Fatalf("after %d moves %q has come: %v; want %q, or %d updates", tr.moves, got, err, want, updates)
		}
	}
	if got != want {
		tr.t.Fatalf("after %d moves: %q, want %q", tr.moves, got, want)
	}
}

// TestOpenSSLAcrossHandOvers: tickets, key updates of either side, answered or owed, and data are taken further by whoever has the
// connection, wherever the one before stopped reading.
func TestOpenSSLAcrossHandOvers(t *testing.T) {
	over := func(nc net.Conn) net.Conn { return &metered{nc.(*net.TCPConn), -1} }
	for _, suite := range opensslSuites {
		for role, start := range map[string]func(*testing.T, func(net.Conn) net.Conn, string, ...string) (*program, *Conn){"server": asServerOver, "client": asClientOver} {
			for _, step := range []int{1, 7, 64, 300} {
				t.Run(fmt.Sprintf("%s as %s, every %d bytes", suite, role, step), func(t *testing.T) {
					t.Parallel()
					p, c := start(t, over, suite)
					tr := travel(t, c, step) // a client's tickets have not been read yet
					p.say("before any update")
					tr.until("before any update\n", 0)
					fmt.Fprintln(tr.c, "hello")
					p.expect("hello")
					for n, command := range []string{"k", "K", "K"} { // without a request, with one
						p.say(command)
						if role == "server" { // openssl takes a line at a time
							p.expect("KEYUPDATE")
						}
						tr.until("", uint64(n+1))
						tr.move()
						if tr.c.updateOwed.Load() != (command == "K") {
							t.Errorf("%s: an answer is owed: %v", command, tr.c.updateOwed.Load())
						}
						p.say("after the update")
						tr.until("after the update\n", 0)
						fmt.Fprintln(tr.c, "new keys here too", n)
						p.expect(fmt.Sprint("new keys here too ", n))
					}
					for n, request := range []bool{false, true} {
						tr.move()
						if err := tr.c.UpdateKeys(request); err != nil {
							t.Fatal(err)
						}
						tr.move()
						fmt.Fprintln(tr.c, "ours", n)
						p.expect(fmt.Sprint("ours ", n))
						p.say("yours")
						tr.until("yours\n", 0)
					}
					if got := tr.updates + tr.c.rx.updates; got != 4 {
						t.Errorf("%d updates, want 4 with the one that we asked for", got)
					}
					tr.c.Close()
				})
			}
		}
	}
}
