package listener

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// newSet answers each connection with its listener's name, and echoes until it drains.
func newSet(t *testing.T) *Set {
	t.Helper()
	s := New(Config{
		Network: netx.HostNS(netx.Options{}), Log: slog.New(slog.DiscardHandler), IdleGrace: 10 * time.Millisecond,
		Serve: func(ctx context.Context, sock *Socket, conn *net.TCPConn) {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			_, _ = io.WriteString(conn, sock.Name)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = io.Copy(conn, conn)
			}()
			select {
			case <-ended:
			case <-sock.Drain:
				_, _ = io.WriteString(conn, "bye")
				conn.Close()
				<-ended
			}
		},
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Drain(ctx)
	})
	return s
}

func listeners(at map[string]string) map[string]*l7.Listener {
	out := map[string]*l7.Listener{"main_internal": {Name: "main_internal", Internal: true}}
	for name, address := range at {
		out[name] = &l7.Listener{Name: name, Addresses: []l7.ListenAddress{{AddrPort: netip.MustParseAddrPort(address)}}}
	}
	return out
}

func (s *Set) at(name string) string {
	for _, l := range s.State() {
		if l.Name == name {
			return l.Address.String()
		}
	}
	return ""
}

func dial(t *testing.T, address, want string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	expect(t, conn, want)
	return conn
}

func expect(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v, want %q", got, err, want)
	}
}

func TestSocketsFollowTheConfiguration(t *testing.T) {
	const alone = "127.94.0.7:0" // so that nobody takes the port when it is free
	s := newSet(t)
	if err := s.Apply(t.Context(), listeners(map[string]string{"a": alone, "b": "127.0.0.1:0"})); err != nil {
		t.Fatal(err)
	}
	first, a := dial(t, s.at("a"), "a"), s.at("a")
	second := dial(t, s.at("b"), "b")
	// The same again, and another one, change nothing for who is there.
	if err := s.Apply(t.Context(), listeners(map[string]string{"a": alone, "b": "127.0.0.1:0", "c": "127.0.0.1:0"})); err != nil {
		t.Fatal(err)
	}
	if s.at("a") != a {
		t.Error("the socket was opened anew")
	}
	_, _ = io.WriteString(first, "x")
	expect(t, first, "x")
	// One that goes drains; the other goes on.
	if err := s.Apply(t.Context(), listeners(map[string]string{"b": "127.0.0.1:0", "c": "127.0.0.1:0"})); err != nil {
		t.Fatal(err)
	}
	expect(t, first, "bye")
	_, _ = io.WriteString(second, "x")
	expect(t, second, "x")
	dial(t, s.at("c"), "c")
	wait.Until(t, time.Minute, "nobody listens any more", func() bool {
		conn, err := net.Dial("tcp", a)
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, nil)
}

func TestARenamedListenerTakesTheAddressOver(t *testing.T) {
	s := newSet(t)
	if err := s.Apply(t.Context(), listeners(map[string]string{"old": "127.0.0.1:0"})); err != nil {
		t.Fatal(err)
	}
	address := s.at("old")
	dial(t, address, "old")
	if err := s.Apply(t.Context(), listeners(map[string]string{"new": address})); err != nil {
		t.Fatal(err)
	}
	// For a moment both take connections.
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		got := make([]byte, 3)
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if string(got) == "new" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the old one still answers")
		}
	}
}

func TestWhatCannotBeOpenedIsNamedAndTheRestWorks(t *testing.T) {
	s := newSet(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0") // by somebody who does not share it
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = s.Apply(t.Context(), listeners(map[string]string{"good": "127.0.0.1:0", "bad": taken.Addr().String()}))
	if err == nil {
		t.Error("no error")
	}
	dial(t, s.at("good"), "good")
}

func TestSoftenKeepsAccepting(t *testing.T) {
	s := newSet(t)
	if err := s.Apply(t.Context(), listeners(map[string]string{"a": "127.0.0.1:0"})); err != nil {
		t.Fatal(err)
	}
	dial(t, s.at("a"), "a")
	s.mu.Lock()
	var sock *socket
	for _, sock = range s.sockets {
	}
	s.mu.Unlock()
	told := map[string]bool{}
	generation := sock.Generation()
	sock.OnSoft(func() { told["here"] = true })
	sock.OnSoft(func() { told["left"] = true })()
	s.Soften()
	sock.OnSoft(func() { told["later"] = true })
	if !told["here"] || told["left"] || told["later"] {
		t.Errorf("told: %v", told)
	}
	if sock.Generation() == generation {
		t.Error("the generation is the same")
	}
	dial(t, s.at("a"), "a")
}
