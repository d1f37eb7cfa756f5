package proxy

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/listener"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// snapshot is what a request sees: the tables, and the clusters that belong to them. It is immutable.
type snapshot struct {
	cfg      *l7.Config
	clusters upstream.Clusters
}

// Server is the proxy. It does nothing until it has a configuration. Safe for concurrent use.
type Server struct {
	// immutable
	deps        Deps
	upstream    *upstream.Manager
	sockets     *listener.Set
	handshakes  chan struct{} // a token for each unfinished TLS handshake
	shaking     sources       // likewise, by source
	exchanges   sync.Pool     // of *exchange
	handlers    netx.Workers  // of HTTP/2 requests
	relays      relays
	upgrades    upgrades
	mirrors     mirrors
	terminators terminators
	stats       stats
	stop        context.CancelFunc
	background  sync.WaitGroup

	current  atomic.Pointer[snapshot]
	draining atomic.Bool
	ids      atomic.Uint64 // of connections

	mu sync.Mutex // held while the configuration changes

	news    sync.Mutex    // guards changed
	changed chan struct{} // closed when another configuration is in force
}

// changes returns a channel that is closed when a configuration comes that is newer than the present one.
func (s *Server) changes() <-chan struct{} {
	s.news.Lock()
	defer s.news.Unlock()
	return s.changed
}

func (s *Server) tell() {
	s.news.Lock()
	defer s.news.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// idleHandlers is how many goroutines wait for the next requests of HTTP/2. They have the stacks that a request needs.
const idleHandlers = 256

// New makes a Server; Close or Drain end it.
func New(deps Deps) *Server {
	deps = deps.withDefaults()
	s := &Server{deps: deps, changed: make(chan struct{}), handshakes: make(chan struct{}, deps.Limits.MaxHandshakes)}
	s.handlers.Idle = idleHandlers
	s.terminators.files.Log = deps.Log
	s.upstream = upstream.NewManager(upstream.Deps{Certs: deps.Certs, Network: deps.Network, Resolver: deps.Resolver, Log: deps.Log})
	s.sockets = listener.New(listener.Config{Network: deps.Network, Log: deps.Log, IdleGrace: deps.Limits.DrainGrace, Serve: s.serveSocket})
	s.current.Store(&snapshot{cfg: l7.NewConfig()})
	s.exchanges.New = func() any { return newExchange(s) }
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.mirrors = mirrors{ctx: ctx, limit: int64(deps.Limits.MaxMirrors)}
	s.relays.open = map[*relayed]struct{}{}
	s.background.Go(func() { s.relays.report(ctx, deps.Observer) })
	return s
}

// SetConfig changes the configuration: listeners are opened and closed, hosts come and go; what is open goes on. It returns
// when the listeners accept. The error joins what of the listeners could not be opened; the rest is in force.
func (s *Server) SetConfig(ctx context.Context, cfg *l7.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Clusters first, so that no request is decided for one that is not there yet.
	s.current.Store(&snapshot{cfg: cfg, clusters: s.upstream.Update(cfg)}) //nolint:contextcheck // what resolves names lives on
	s.terminators.forget(cfg)
	s.tell()
	s.recheck(s.relays.all()...)
	for _, t := range s.upgrades.all() {
		t.rejudge(s)
	}
	return s.sockets.Apply(ctx, cfg.Listeners)
}

// Config is the one in force.
func (s *Server) Config() *l7.Config { return s.current.Load().cfg }

// DrainListeners begins a drain without ending: HTTP connections are told to go elsewhere, new ones are still accepted.
func (s *Server) DrainListeners() {
	s.draining.Store(true)
	s.sockets.Soften()
}

// Drain ends gracefully. First clients are told to go elsewhere while everything is still accepted, since others may not have
// heard yet that this proxy leaves; after Limits.DrainGrace nothing is accepted any more and tunnels end with what they carry.
// It returns when nothing is open, or when ctx ends, which cuts the rest.
func (s *Server) Drain(ctx context.Context) error {
	s.DrainListeners()
	grace := s.deps.Limits.DrainGrace
	if deadline, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(deadline)/3) // leaves time for what is open, and for idle connections
	}
	select {
	case <-time.After(grace):
	case <-ctx.Done():
	}
	err := s.sockets.Drain(ctx)
	s.release()
	return err
}

// Close ends everything at once.
func (s *Server) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.sockets.Drain(ctx) // that connections were cut is what was asked for
	s.release()
	return nil
}

// release lets go of all that is left when no client is.
func (s *Server) release() {
	s.handlers.Wait()
	if s.deps.Last != nil {
		s.deps.Last()
	}
	s.stop()
	s.mirrors.work.Wait()
	s.background.Wait()
	s.upstream.Close()
}

// Listeners tells the sockets that are open, sorted by name (/listeners).
func (s *Server) Listeners() []listener.State { return s.sockets.State() }

// Clusters tells the state of all clusters and hosts, sorted by name (/clusters).
func (s *Server) Clusters() []upstream.ClusterState { return s.upstream.State() }

// Address is where a listener listens; not valid when it doesn't. It is for listeners on port 0.
func (s *Server) Address(name string) netip.AddrPort {
	for _, l := range s.sockets.State() {
		if l.Name == name {
			return l.Address
		}
	}
	return netip.AddrPort{}
}
