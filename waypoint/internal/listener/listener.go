// Package listener keeps the sockets on which the proxy listens: those of the configuration, opened and closed as it changes.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Socket is a listening socket as its connections see it.
type Socket struct {
	// Name of the listener; Address is where it listens.
	Name    string
	Address netip.AddrPort
	// Drain is closed when the connections are to end, and no new ones are accepted any more.
	Drain <-chan struct{}

	soft *soft
}

// OnSoft calls f when connections that exist now are asked to go elsewhere: while new ones are still accepted, or when the socket
// is closed. One that begins after that gets a moment for its first request. The result takes the wish back.
func (s *Socket) OnSoft(f func()) (forget func()) { return s.soft.onSoft(f) }

// Generation changes when connections are asked to go elsewhere.
func (s *Socket) Generation() uint64 { return s.soft.generation.Load() }

// OnEnd calls f when connections that carry nothing are to be closed, which is some time after Drain; one that begins even later
// gets a moment, too. The result takes the wish back.
func (s *Socket) OnEnd(f func()) (forget func()) { return s.soft.onEnd(f) }

// firstRequest is how long a connection that began while the socket was ending may take to begin a request.
const firstRequest = time.Second

// soft is how the connections of a socket learn that they are to end.
type soft struct {
	generation atomic.Uint64

	mu    sync.Mutex // guards the rest
	ended bool
	late  bool // idle connections are to be closed
	next  uint64
	turns map[uint64]func() // of OnSoft
	ends  map[uint64]func() // of OnEnd
}

func newSoft() *soft { return &soft{turns: map[uint64]func(){}, ends: map[uint64]func(){}} }

func (s *soft) onSoft(f func()) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		timer := time.AfterFunc(firstRequest, f)
		return func() { timer.Stop() }
	}
	return s.wishLocked(&s.turns, f)
}

func (s *soft) onEnd(f func()) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late {
		timer := time.AfterFunc(firstRequest, f)
		return func() { timer.Stop() }
	}
	return s.wishLocked(&s.ends, f)
}

func (s *soft) wishLocked(wishes *map[uint64]func(), f func()) (forget func()) {
	s.next++
	n := s.next
	(*wishes)[n] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(*wishes, n)
	}
}

// turn asks who is here to go elsewhere; end says that nobody else comes.
func (s *soft) turn(end bool) {
	s.mu.Lock()
	turns := s.turns
	s.turns = map[uint64]func(){}
	s.ended = s.ended || end
	s.generation.Add(1)
	s.mu.Unlock()
	for _, f := range turns {
		f()
	}
}

// end asks what is idle to close.
func (s *soft) end() {
	s.mu.Lock()
	s.late = true
	ends := s.ends
	s.ends = map[uint64]func(){}
	s.mu.Unlock()
	for _, f := range ends {
		f()
	}
}

// Config of a Set.
type Config struct {
	Network netx.Network
	Log     *slog.Logger
	// IdleGrace is how long connections that carry nothing may stay after their socket was closed, so that a request that is
	// on its way still finds them.
	IdleGrace time.Duration
	// Serve carries one connection, on a goroutine of its own, and closes it. ctx ends when it must end at once.
	Serve func(ctx context.Context, s *Socket, conn *net.TCPConn)
}

// State tells a socket for /listeners.
type State struct {
	Name        string
	Address     netip.AddrPort
	Connections int
}

// Set is all sockets. Safe for concurrent use.
type Set struct {
	// immutable
	cfg   Config
	ctx   context.Context //nolint:containedctx // of the connections, which outlive what opened the socket
	abort context.CancelFunc

	conns sync.WaitGroup // accept loops and connections

	mu      sync.Mutex // guards the rest
	sockets map[key]*socket
	leaving []*socket // closed for listening, carrying on
	closed  bool
}

type key struct {
	name string
	at   l7.ListenAddress
}

// socket is one that listens, or whose connections go on.
type socket struct {
	Socket
	listener *net.TCPListener
	drain    chan struct{}
	once     sync.Once
	open     atomic.Int64
}

// New returns a Set without sockets.
func New(cfg Config) *Set {
	s := &Set{cfg: cfg, sockets: map[key]*socket{}}
	s.ctx, s.abort = context.WithCancel(context.Background())
	return s
}

// Apply makes the sockets those of the listeners: new ones are opened first, then those that nobody names any more stop
// listening and drain. What cannot be opened is in the error; it is tried again at the next Apply.
func (s *Set) Apply(ctx context.Context, listeners map[string]*l7.Listener) error {
	want := map[key]bool{}
	for name, l := range listeners {
		if l.Internal {
			continue
		}
		for _, at := range l.Addresses {
			want[key{name, at}] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	var failed []error
	for k := range want {
		if s.sockets[k] != nil {
			continue
		}
		l, err := s.listen(ctx, k.at)
		if err != nil {
			failed = append(failed, fmt.Errorf("listener %s: %w", k.name, err))
			continue
		}
		drain := make(chan struct{})
		sock := &socket{Socket: Socket{Name: k.name, Address: bound(l), Drain: drain, soft: newSoft()}, listener: l, drain: drain}
		s.sockets[k] = sock
		s.conns.Go(func() { s.accept(sock) })
		s.cfg.Log.Info("listening", "listener", k.name, "address", l.Addr().String())
	}
	for k, sock := range s.sockets {
		if !want[k] {
			delete(s.sockets, k)
			s.retireLocked(sock, s.cfg.IdleGrace)
			s.cfg.Log.Info("listening no more", "listener", k.name, "address", k.at.String())
		}
	}
	return errors.Join(failed...)
}

func (s *Set) retireLocked(sock *socket, grace time.Duration) {
	s.leaving = slices.DeleteFunc(s.leaving, func(o *socket) bool { return o.open.Load() == 0 })
	s.leaving = append(s.leaving, sock)
	sock.stop(grace)
}

func bound(l *net.TCPListener) netip.AddrPort {
	ap := l.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func (s *Set) listen(ctx context.Context, at l7.ListenAddress) (*net.TCPListener, error) {
	network := "tcp4"
	switch {
	case at.Addr().Is6() && at.Dual:
		network = "tcp"
	case at.Addr().Is6():
		network = "tcp6"
	}
	l, err := s.cfg.Network.Listen(ctx, network, at.String())
	if err != nil && network == "tcp" && at.Addr().IsUnspecified() {
		// No IPv6 here.
		l, err = s.cfg.Network.Listen(ctx, "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()).String())
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", at, err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("listen on %s: a %T is no TCP listener", at, l)
	}
	return tcp, nil
}

// lastCall is how long connections that the kernel has completed are still taken when a socket closes: what is left in its
// queue then would be reset.
const lastCall = 20 * time.Millisecond

// stop ends listening and begins the drain of what is open.
func (sock *socket) stop(grace time.Duration) {
	sock.once.Do(func() {
		// A deadline lets the accept loop empty the queue before it closes the socket.
		if err := sock.listener.SetDeadline(time.Now().Add(lastCall)); err != nil {
			sock.listener.Close()
		}
		close(sock.drain)
		sock.soft.turn(true)
		time.AfterFunc(grace, sock.soft.end)
	})
}

// Soften asks the HTTP connections that exist now to go elsewhere; new ones are still accepted.
func (s *Set) Soften() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sock := range s.sockets {
		sock.soft.turn(false)
	}
}

// left ends a connection that was served.
func (sock *socket) left(conn *net.TCPConn) {
	conn.Close()
	sock.open.Add(-1)
}

func (s *Set) accept(sock *socket) {
	defer sock.listener.Close()
	pause := 5 * time.Millisecond
	for {
		conn, err := sock.listener.AcceptTCP()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			sock.open.Add(1)
			s.conns.Go(func() {
				defer sock.left(conn)
				s.cfg.Serve(s.ctx, &sock.Socket, conn)
			})
			continue
		case errors.Is(err, net.ErrClosed), isTimeout(err):
			return
		}
		// Out of descriptors or memory: wait for some to be given back.
		s.cfg.Log.Warn("accept", "listener", sock.Name, "error", err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-sock.drain:
			return
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// State lists the sockets that listen, sorted.
func (s *Set) State() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, 0, len(s.sockets))
	for _, sock := range s.sockets {
		out = append(out, State{Name: sock.Name, Address: sock.Address, Connections: int(sock.open.Load())})
	}
	slices.SortFunc(out, func(a, b State) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.Address.Compare(b.Address)
	})
	return out
}

// Drain stops listening and waits for the connections to end, until ctx does; then it ends them. Nothing is left when it returns.
func (s *Set) Drain(ctx context.Context) error {
	grace := s.cfg.IdleGrace
	if deadline, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(deadline)/2)
	}
	s.mu.Lock()
	s.closed = true
	for k, sock := range s.sockets {
		delete(s.sockets, k)
		s.retireLocked(sock, grace)
	}
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = fmt.Errorf("connections were cut: %w", context.Cause(ctx))
	}
	s.abort()
	<-idle
	return err
}
