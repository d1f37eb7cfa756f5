package hbone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/tlsrec"
)

// Resumed is a connection that was exported elsewhere, before it goes on here: nothing is read or written yet. It ends with Serve,
// Start or Drop.
type Resumed struct {
	c       *conn
	streams []*Stream
	tls     *tlsrec.Conn
}

// ResumeTLS goes on with the TLS connection of s over nc, its socket. s keeps the rest of the state.
func ResumeTLS(nc net.Conn, s *State) (Secured, error) { return tlsrec.Resume(nc, s.reveal().tls) }

// Resume goes on with the connection of s over conn, which ResumeTLS has returned, wrapped or not. s is of no use any more. On an
// error the caller closes the socket under conn; conn itself would say goodbye to the peer.
func Resume(conn net.Conn, s *State, log *slog.Logger) (*Resumed, error) {
	tls, ok := innermost(conn).(*tlsrec.Conn)
	if !ok {
		return nil, errors.New("resume an HBONE connection: its TLS records are not ours")
	}
	c, err := resumed(conn, s.reveal(), log)
	if err != nil {
		return nil, fmt.Errorf("resume an HBONE connection: %w", err)
	}
	r := &Resumed{c: c, tls: tls}
	for _, id := range s.StreamIDs() {
		r.streams = append(r.streams, c.streams[id])
	}
	return r, nil
}

// Streams are those that were open, in the order of [State.StreamIDs].
func (r *Resumed) Streams() []*Stream { return r.streams }

// Live returns the connection.
func (r *Resumed) Live() Live { return Live{r.c} }

// Drop forgets the connection, of which the peer learns nothing: whoever exported it goes on.
func (r *Resumed) Drop() { Forget(r.tls) }

// Forget erases what makes a TLS connection that ResumeTLS has returned, and closes this process's hold on its socket. The peer
// learns nothing.
func Forget(conn Secured) {
	if tls, ok := conn.(*tlsrec.Conn); ok {
		if s, err := tls.Export(); err == nil {
			s.Erase()
		}
	}
	conn.NetConn().Close()
}

// start begins to write and to watch the peer.
func (r *Resumed) start() {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kick()
	c.ping.start(c)
}

// Serve is [ServeConn] for a connection of a server that goes on; each stream that was open is given to carry, on a goroutine of its
// own, and closed when done is called, once.
func (r *Resumed) Serve(ctx context.Context, h Handler, cfg ServerConfig, carry func(ctx context.Context, s *Stream, done func())) error {
	life := netx.NewLife(ctx)
	defer life.End(nil)
	c := r.c
	c.charge(cfg.Budget)
	s := &server{c: c, life: life, handler: h}
	c.role = s
	defer s.handlers.Wait()
	stop := life.AfterFunc(func() { c.fail(netx.Cause(life)) }) //nolint:contextcheck // life is made from ctx
	defer stop()
	c.mu.Lock()
	for _, st := range r.streams {
		st.life = netx.NewLife(life) //nolint:contextcheck // life is made from ctx
		s.running++
		w := &responder{Stream: st, server: s, done: true}
		done := w.Detach()
		s.handlers.Go(func() { carry(st.life, st, done) }) //nolint:contextcheck // life is made from ctx
	}
	c.mu.Unlock()
	r.start()
	return s.run(cfg)
}

// run reads until the connection ends.
func (s *server) run(cfg ServerConfig) error {
	c := s.c
	if cfg.Drain != nil {
		go s.drainOn(cfg.Drain)
	}
	if cfg.Started != nil {
		cfg.Started(Live{c})
	}
	err := c.readLoop()
	s.life.End(nil)
	if errors.Is(err, io.EOF) || errors.Is(err, errDrained) || errors.Is(err, ErrMoved) {
		return nil
	}
	return fmt.Errorf("HBONE from %s: %w", c.nc.RemoteAddr(), err)
}

// Start goes on with a connection of a client.
func (r *Resumed) Start() *ClientConn {
	cc := &ClientConn{c: r.c, ended: make(chan struct{}), emptied: time.Now()}
	r.c.role = cc
	r.start()
	go func() {
		defer close(cc.ended)
		_ = cc.c.readLoop() // what ended it is kept in c.err
	}()
	return cc
}

// Adopt adds a connection for key, no new streams after expiry, unless that is zero.
func (p *Pool) Adopt(key PoolKey, cc *ClientConn, expiry time.Time) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrPoolClosed
	}
	defer p.mu.Unlock()
	h := p.hosts[key]
	if h == nil {
		h = &host{}
		p.hosts[key] = h
	}
	p.addLocked(key, h, &pooled{cc: cc, expiry: expiry})
	return nil
}

// addLocked takes a connection into the pool, which watches it.
func (p *Pool) addLocked(key PoolKey, h *host, pc *pooled) {
	h.conns = append(h.conns, pc)
	pc.idle = time.AfterFunc(p.cfg.IdleTimeout, func() { p.expire(key, pc) })
	p.work.Go(func() { p.watch(key, pc) })
}

// Pooled is a connection of a pool.
type Pooled struct {
	Key    PoolKey
	Expiry time.Time
	Live   Live
}

// Connections lists what the pool has open.
func (p *Pool) Connections() []Pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Pooled
	for key, h := range p.hosts {
		for _, pc := range h.conns {
			all = append(all, Pooled{Key: key, Expiry: pc.expiry, Live: pc.cc.Live()})
		}
	}
	return all
}
