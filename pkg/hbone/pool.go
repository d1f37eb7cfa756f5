package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"
)

// PoolKey says which connections may carry a request: same source identity, source address, next hop
// and acceptable peer identities.
type PoolKey struct {
	Source       string // SPIFFE ID of the source workload
	SourceIP     netip.Addr
	Dest         netip.AddrPort
	ExpectedSANs string // canonical: sorted, comma-joined
}

// DialFunc opens a connection for key with its TLS handshake done. See [WithExpiry].
type DialFunc func(ctx context.Context, key PoolKey) (net.Conn, error)

// WithExpiry returns conn such that a Pool opens no new streams on it after t (the own certificate's
// NotAfter). The peer's certificate bounds a *tls.Conn anyway.
func WithExpiry(conn net.Conn, t time.Time) net.Conn { return expiring{conn, t} }

type expiring struct {
	net.Conn
	at time.Time
}

// PoolConfig configures a Pool; the zero value is ready to use.
type PoolConfig struct {
	Log *slog.Logger
	// IdleTimeout closes a connection without streams; default 5 min.
	IdleTimeout time.Duration
	// DialTimeout bounds one dial; default 10 s.
	DialTimeout time.Duration
	// MaxStreams per connection before another is opened; default 100.
	MaxStreams int
	// BusyConns is up to how many connections per key are opened because those that there are carry much; default: as many as there
	// are processors, 4 at most.
	BusyConns int
	// BusyRate is how many bytes per second, in one direction, are much; default 128 MiB.
	BusyRate int
	// Budget is that of all connections; nil is none.
	Budget Budget
	// Ended, if set, is told of each connection that has ended, and why; it must not block.
	Ended func(key PoolKey, err error)
}

// ErrPoolClosed means that the pool takes no new requests.
var ErrPoolClosed = errors.New("hbone: pool is closed")

// Pool keeps client connections per PoolKey. Safe for concurrent use.
type Pool struct {
	// immutable
	dial DialFunc
	cfg  PoolConfig
	ctx  context.Context //nolint:containedctx // bounds dials, which outlive the request that asked for them
	stop context.CancelFunc
	now  func() time.Time

	work sync.WaitGroup // dials and watchers

	mu     sync.Mutex // guards the rest; conn.mu may be taken under it, not the other way round
	closed bool
	hosts  map[PoolKey]*host
}

// host is what the pool has for one key; guarded by Pool.mu.
type host struct {
	conns      []*pooled
	dialing    *dialing  // single flight
	spareAfter time.Time // until then none is made only because of load
}

// pooled is one connection of the pool.
type pooled struct {
	cc     *ClientConn
	expiry time.Time // zero is never
	idle   *time.Timer
}

// dialing is a dial in flight, shared by all requests that wait for it.
type dialing struct {
	done chan struct{}
	err  error
}

// NewPool returns an empty pool.
func NewPool(dial DialFunc, cfg PoolConfig) *Pool {
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 5 * time.Minute
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 100
	}
	if cfg.BusyConns == 0 {
		cfg.BusyConns = min(4, runtime.NumCPU(), runtime.GOMAXPROCS(0))
	}
	if cfg.BusyRate == 0 {
		cfg.BusyRate = busyRate
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Pool{dial: dial, cfg: cfg, ctx: ctx, stop: stop, now: time.Now, hosts: make(map[PoolKey]*host)}
}

// ErrImpatient ends the wait for a connection after Request.Patience. It is an [ErrUnreachable], too.
var ErrImpatient = fmt.Errorf("hbone: the connection is not there in time: %w", os.ErrDeadlineExceeded)

// unreachable is an error that is [ErrUnreachable] without saying so.
type unreachable struct{ error }

func (u unreachable) Unwrap() error        { return u.error }
func (u unreachable) Is(target error) bool { return target == ErrUnreachable }

// Connect opens a tunnel over a pooled or new connection. A request that the peer certainly did not process
// is tried once more on another connection. Without a connection the error is an [ErrUnreachable]. The key is only read; by value it would
// be on the stack of everybody who waits in here.
func (p *Pool) Connect(ctx context.Context, key *PoolKey, r *Request) (*Stream, *Response, error) {
	first, err := p.pick(ctx, key, r.Patience, nil)
	if err != nil {
		return nil, nil, err
	}
	s, resp, err := first.cc.connect(ctx, r, true)
	if err == nil || !errors.Is(err, ErrNotSent) || ctx.Err() != nil {
		return s, resp, err
	}
	second, err := p.pick(ctx, key, r.Patience, first)
	if err != nil {
		return nil, nil, err
	}
	return second.cc.connect(ctx, r, true)
}

// pick claims a connection with room for one more stream, and other than one, dialling if there is none.
func (p *Pool) pick(ctx context.Context, key *PoolKey, patience time.Duration, except *pooled) (*pooled, error) {
	var impatient <-chan time.Time
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, ErrPoolClosed
		}
		h := p.hosts[*key]
		if h == nil {
			h = &host{}
			p.hosts[*key] = h
		}
		if pc, busy := p.best(h, except); pc != nil {
			if busy {
				p.spare(*key, h) //nolint:contextcheck // shared by all who come later, so it lives as long as the pool
			}
			pc.cc.claim()
			p.mu.Unlock()
			return pc, nil
		}
		d := h.dialing
		if d == nil {
			d = p.startDial(*key, h) //nolint:contextcheck // shared by all who wait, so it lives as long as the pool
		}
		p.mu.Unlock()
		if patience > 0 && impatient == nil {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			impatient = timer.C
		}
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-impatient:
			return nil, unreachable{fmt.Errorf("wait for HBONE connection to %s: %w", key.Dest, ErrImpatient)}
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for HBONE connection to %s: %w", key.Dest, context.Cause(ctx))
		}
	}
}

// dialFor opens a connection on behalf of all who wait for d.
func (p *Pool) dialFor(key PoolKey, d *dialing) {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.DialTimeout)
	defer cancel()
	conn, err := p.dial(ctx, key)
	var cc *ClientConn
	pc := &pooled{}
	if err == nil {
		pc.expiry = expiryOf(conn)
		if e, ok := conn.(expiring); ok {
			conn = e.Conn
		}
		cc, err = NewClientConn(conn, ClientConfig{Log: p.cfg.Log, Budget: p.cfg.Budget})
	}
	if err != nil {
		d.err = unreachable{fmt.Errorf("dial HBONE to %s: %w", key.Dest, err)}
	}
	p.mu.Lock()
	h := p.hosts[key]
	if h != nil && h.dialing == d {
		h.dialing = nil
	}
	pc.cc = cc
	rejected := cc != nil && (p.closed || h == nil)
	switch {
	case rejected:
		d.err = ErrPoolClosed
	case cc != nil:
		p.addLocked(key, h, pc)
	case h != nil && len(h.conns) == 0:
		delete(p.hosts, key)
	case h != nil:
		h.spareAfter = p.now().Add(spareRetry)
	}
	p.mu.Unlock()
	if rejected {
		cc.Close()
	}
	close(d.done)
}

func expiryOf(conn net.Conn) (at time.Time) {
	if e, ok := conn.(expiring); ok {
		at, conn = e.at, e.Conn
	}
	if t, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		if peers := t.ConnectionState().PeerCertificates; len(peers) > 0 && (at.IsZero() || peers[0].NotAfter.Before(at)) {
			at = peers[0].NotAfter
		}
	}
	return at
}

// expire runs when a connection may have been idle for the timeout.
func (p *Pool) expire(key PoolKey, pc *pooled) {
	p.mu.Lock()
	idleFor := pc.cc.idleFor()
	if pc.cc.load() > 0 || idleFor < p.cfg.IdleTimeout {
		pc.idle.Reset(p.cfg.IdleTimeout - idleFor)
		p.mu.Unlock()
		return
	}
	p.forget(key, pc)
	p.mu.Unlock()
	pc.cc.Close()
}

// watch evicts a connection when it ends.
func (p *Pool) watch(key PoolKey, pc *pooled) {
	<-pc.cc.ended
	p.mu.Lock()
	p.forget(key, pc)
	p.mu.Unlock()
	if p.cfg.Ended != nil {
		p.cfg.Ended(key, pc.cc.c.failure())
	}
}

// forget drops pc from the pool; called with mu held.
func (p *Pool) forget(key PoolKey, pc *pooled) {
	pc.idle.Stop()
	h := p.hosts[key]
	if h == nil {
		return
	}
	for i, other := range h.conns {
		if other == pc {
			h.conns = append(h.conns[:i], h.conns[i+1:]...)
			break
		}
	}
	if len(h.conns) == 0 && h.dialing == nil {
		delete(p.hosts, key)
	}
}

// CloseIdle closes the connections that carry no stream.
func (p *Pool) CloseIdle() {
	for _, pc := range p.all(func(pc *pooled) bool {
		return pc.cc.load() == 0
	}) {
		pc.cc.Close()
	}
}

// all lists the connections that match and takes them out, so that no new stream picks one.
func (p *Pool) all(match func(*pooled) bool) []*pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*pooled
	for key, h := range p.hosts {
		for _, pc := range append([]*pooled(nil), h.conns...) {
			if match(pc) {
				out = append(out, pc)
				p.forget(key, pc)
			}
		}
	}
	return out
}

// Drain refuses new streams and returns when the open ones ended or ctx is done. The pool is closed then.
func (p *Pool) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	var ended []<-chan struct{}
	for _, h := range p.hosts {
		for _, pc := range h.conns {
			pc.cc.retire()
			ended = append(ended, pc.cc.ended)
		}
	}
	p.mu.Unlock()
	defer p.Close()
	for _, end := range ended {
		select {
		case <-end:
		case <-ctx.Done():
			return fmt.Errorf("drain HBONE pool: %w", context.Cause(ctx))
		}
	}
	return nil
}

// Close ends all connections and their streams and waits for what the pool started.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	for _, pc := range p.all(func(*pooled) bool { return true }) {
		pc.cc.Close()
	}
	p.work.Wait()
	return nil
}
