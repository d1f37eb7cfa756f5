package upstream

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/lb"
	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Host is one host of a cluster, and the connections to it. It lives as long as its endpoint keeps its key.
type Host struct {
	// immutable
	cluster *Cluster
	address string // as in logs
	// destination replaces the endpoint's address where that is the client's destination.
	destination netip.AddrPort

	// root is the host itself, or the whole of which this is the part that serves one client, whom header tells of; see Cluster.told.
	root    *Host
	header  proxyproto.Header
	load    *lb.Host // these are shared with the root
	stats   *hostCounters
	outlier *outlier

	endpoint atomic.Pointer[l7.Endpoint] // the newest description; of roots
	since    time.Time                   // immutable: when the host was added
	used     atomic.Int64                // unix nanoseconds of the last request; only of dynamic hosts

	h1 pool1
	h2 pool2

	mu   sync.Mutex // guards the rest
	open map[*conn]struct{}

	gone atomic.Bool // retired for good: connections end with the requests they carry
	// renewed counts retirements: connections made before the last one are not kept.
	renewed atomic.Uint64
}

func newHost(c *Cluster, e *l7.Endpoint) *Host {
	h := &Host{
		cluster: c, address: addressOf(e, e.Address), since: time.Now(), open: map[*conn]struct{}{},
		load: &lb.Host{}, stats: &hostCounters{}, outlier: &outlier{},
	}
	h.endpoint.Store(e)
	h.root, h.h1.host, h.h2.host = h, h, h
	return h
}

// newPart is the part of a host that serves the client whom the header tells of.
func newPart(root *Host, header proxyproto.Header) *Host {
	h := &Host{
		cluster: root.cluster, address: root.address, destination: root.destination, since: root.since, open: map[*conn]struct{}{},
		root: root, header: header, load: root.load, stats: root.stats, outlier: root.outlier,
	}
	h.h1.host, h.h2.host = h, h
	return h
}

// users are the connections that carry something.
func (h *Host) users() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.open {
		n += c.cc.Active()
	}
	return n
}

// addressOf is how access logs name the host.
func addressOf(e *l7.Endpoint, to netip.AddrPort) string {
	if e.Internal == "" {
		return to.String()
	}
	id := e.ID
	if id == "" && to.IsValid() {
		id = to.String()
	}
	return "envoy://" + e.Internal + "/" + id
}

// Address is %UPSTREAM_HOST%: "10.0.0.1:8080", or "envoy://connect_originate/10.0.0.1:8080".
func (h *Host) Address() string { return h.address }

// Endpoint describes the host.
func (h *Host) Endpoint() *l7.Endpoint { return h.root.endpoint.Load() }

// Stream is an open request. Its zero value is filled by [Host.Open]; Close must be called then, by the goroutine to which the stream
// belongs. After Close it can be filled again.
type Stream struct {
	httpmsg.ClientStream
	conn *conn

	mu   sync.Mutex // guards open
	open bool       // Cancel has something to cancel
}

func (s *Stream) begin(stream httpmsg.ClientStream, on *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ClientStream, s.conn, s.open = stream, on, true
}

// Local is our end of the connection.
func (s *Stream) Local() netip.AddrPort { return s.conn.local }

// Identity is what the peer proved exactly; "" when nothing exact was asked for.
func (s *Stream) Identity() string { return s.conn.identity }

// Reused is whether the connection had carried requests before.
func (s *Stream) Reused() bool { return s.conn.requests.Load() > 1 }

// Broken classifies an error of the stream.
func (s *Stream) Broken(err error) *Error {
	e := Broken(err)
	if e.Reason == RemoteReset && !s.conn.multiplex {
		e.Reason = ConnectionTermination // HTTP/1 has nothing smaller to reset
	}
	return e
}

// Cancel aborts the request: whatever waits for the stream fails. Close is still to be called, and is the owner's alone. Any goroutine
// may call Cancel, at any time: after Close it has no effect, as what the stream was made of may serve somebody else by then.
func (s *Stream) Cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		s.ClientStream.Cancel()
	}
}

// Close ends the request and gives the connection back. Only the first call has an effect.
func (s *Stream) Close() {
	s.mu.Lock()
	open := s.open
	s.open = false
	s.mu.Unlock()
	if !open {
		return
	}
	s.ClientStream.Close()
	c := s.conn
	s.ClientStream, s.conn = nil, nil
	h := c.host
	h.load.End()
	h.cluster.gauges.requests.give()
	h.release(c)
}

// release gives a connection back to its pool.
func (h *Host) release(c *conn) {
	if c.shared {
		h.h2.release(c)
	} else {
		h.h1.release(c)
	}
}

// attempts are how often another connection is tried when one turns out to take no more requests.
const attempts = 3

// Open sends the head of a request over a connection of the pool or a new one. Version is the client's, for clusters that use
// the same. The error is always an *[Error].
func (h *Host) Open(ctx context.Context, head *httpmsg.Head, end bool, version httpmsg.Version, s *Stream) error {
	c := h.cluster
	conf := c.Config()
	if !c.gauges.requests.take(conf.Breakers.MaxRequests) {
		c.stats.rqOverflow.Add(1)
		c.stats.rqPendingOverflow.Add(1)
		return &Error{Reason: Overflow, Unsent: true, Err: errOverflow}
	}
	h.load.Begin()
	if h.destination.IsValid() || h.root != h {
		h.used.Store(time.Now().UnixNano())
	}
	err := h.openOn(ctx, conf, head, end, version, s)
	if err != nil {
		h.load.End()
		c.gauges.requests.give()
		h.stats.rqError.Add(1)
		return err
	}
	c.stats.rqTotal.Add(1)
	h.stats.rqTotal.Add(1)
	return nil
}

func (h *Host) openOn(ctx context.Context, conf *l7.Cluster, head *httpmsg.Head, end bool, version httpmsg.Version, s *Stream) error {
	for attempt := 1; ; attempt++ {
		conn, err := h.acquire(ctx, conf, version)
		if err != nil {
			return err
		}
		conn.requests.Add(1)
		stream, err := conn.cc.Open(ctx, head, end)
		if err == nil {
			s.begin(stream, conn)
			return nil
		}
		h.release(conn)
		if ctx.Err() == nil && attempt < attempts && errors.Is(err, httpmsg.ErrNotSent) {
			continue // a connection that the peer closed while it was idle
		}
		return Broken(err)
	}
}

// acquire gets a connection that takes a request.
func (h *Host) acquire(ctx context.Context, conf *l7.Cluster, version httpmsg.Version) (*conn, error) {
	switch {
	case conf.HTTP == l7.UpstreamHTTP2, conf.HTTP == l7.UpstreamSame && version == httpmsg.HTTP2:
		return h.h2.acquire(ctx, conf)
	}
	return h.h1.acquire(ctx, conf)
}

// retire lets go of the connections: idle ones at once, the others when they carry nothing any more. A host that is gone keeps
// none from now on, but still serves who has chosen it before.
func (h *Host) retire(gone bool) {
	if gone {
		h.gone.Store(true)
	}
	h.renewed.Add(1)
	h.h1.closeIdle()
	h.h2.retire()
}

// abort closes all connections.
func (h *Host) abort() {
	h.mu.Lock()
	conns := make([]*conn, 0, len(h.open))
	for c := range h.open {
		conns = append(conns, c)
	}
	h.mu.Unlock()
	for _, c := range conns {
		_ = c.cc.Close() // its requests see the error
	}
}

// keeps is whether a connection may serve another request.
func (h *Host) keeps(c *conn) bool {
	return !h.gone.Load() && c.generation == h.renewed.Load()
}
