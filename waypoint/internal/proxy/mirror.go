package proxy

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// mirrorTimeout bounds a mirrored request whose original has no timeout.
const mirrorTimeout = 30 * time.Second

// mirrors are the mirrored requests that are under way.
type mirrors struct {
	// immutable
	ctx   context.Context //nolint:containedctx // mirrors outlive the requests that they copy
	limit int64

	open          atomic.Int64
	sent, dropped atomic.Uint64
	work          sync.WaitGroup
}

// mirror is a copy of a request, whose answer nobody waits for. It never holds its original up: what it cannot take is dropped,
// and the mirror with it.
type mirror struct {
	mu      sync.Mutex // guards the rest
	changed sync.Cond
	pending []byte
	limit   int
	ended   bool
	failed  bool
	trailer *httpmsg.Header
}

// mirror starts the copies of a request; body pieces are to be added to the result.
func (s *Server) mirror(x *exchange, wanted []l7.Mirror) []*mirror {
	var out []*mirror
	for i := range wanted {
		w := &wanted[i]
		cluster := x.snap.clusters[w.ClusterName]
		if cluster == nil || w.Cluster == nil {
			continue
		}
		if s.mirrors.open.Add(1) > s.mirrors.limit {
			s.mirrors.open.Add(-1)
			s.mirrors.dropped.Add(1)
			continue
		}
		head := cloneHead(x.head)
		head.Authority, head.Expects = strings.Clone(w.Authority), false
		m := &mirror{limit: s.deps.Limits.RetryBuffer}
		m.changed.L = &m.mu
		conn := x.c.conn
		choice := upstream.Choice{Rand: s.deps.Rand, Hash: x.decision.Hash, HashOK: x.decision.HashOK, Conn: &conn}
		limit := x.decision.Timeout
		if limit == 0 {
			limit = mirrorTimeout
		}
		bodiless := x.s.Ended()
		s.mirrors.sent.Add(1)
		s.mirrors.work.Go(func() {
			defer s.mirrors.open.Add(-1)
			m.run(s.mirrors.ctx, limit, cluster, &choice, head, bodiless)
		})
		out = append(out, m)
	}
	return out
}

func cloneHead(h *httpmsg.Head) *httpmsg.Head {
	out := *h
	out.Header = httpmsg.Header{}
	for key, value := range h.Header.All() {
		out.Header.Add(strings.Clone(key), strings.Clone(value))
	}
	out.Method, out.Scheme, out.Authority, out.Path = strings.Clone(h.Method), strings.Clone(h.Scheme), strings.Clone(h.Authority), strings.Clone(h.Path)
	return &out
}

// run sends the copy and reads its answer away.
func (m *mirror) run(ctx context.Context, limit time.Duration, cluster *upstream.Cluster, choice *upstream.Choice, head *httpmsg.Head, bodiless bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer m.fail() // nobody takes more
	host := cluster.Pick(choice)
	if host == nil {
		return
	}
	var stream upstream.Stream
	if host.Open(ctx, head, bodiless, head.Version, &stream) != nil {
		return
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, stream.Cancel)
	defer stop()
	if !bodiless {
		wake := context.AfterFunc(ctx, m.fail)
		defer wake()
		if !m.send(&stream) {
			return
		}
	}
	response, err := stream.Response(ctx, nil)
	if err != nil {
		return
	}
	cluster.Answered(host, response.Status)
	buf := netx.Pool.Get(netx.MediumBuffer)
	defer func() { netx.Pool.Put(buf) }()
	for !stream.Ended() {
		if _, err := stream.Read(buf); err != nil {
			return
		}
	}
}

// send writes the body as it is added; false says that the copy is given up.
func (m *mirror) send(to httpmsg.Outgoing) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		for len(m.pending) == 0 && !m.ended && !m.failed {
			m.changed.Wait()
		}
		if m.failed {
			return false
		}
		p := m.pending
		m.pending = nil
		ended, trailer := m.ended, m.trailer
		m.mu.Unlock()
		_, err := to.Write(p)
		switch {
		case err != nil:
		case ended:
			err = to.Finish(trailer)
		default:
			err = to.Flush()
		}
		m.mu.Lock()
		if err != nil || ended {
			return err == nil
		}
	}
}

// add takes a piece of the body; it never waits.
func (m *mirror) add(p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed {
		return
	}
	if len(m.pending)+len(p) > m.limit {
		m.failed = true
	} else {
		m.pending = append(m.pending, p...)
	}
	m.changed.Broadcast()
}

// finish says that the body is whole.
func (m *mirror) finish(trailer *httpmsg.Header) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	if trailer != nil {
		m.trailer = &httpmsg.Header{}
		for key, value := range trailer.All() {
			m.trailer.Add(strings.Clone(key), strings.Clone(value))
		}
	}
	m.changed.Broadcast()
}

// fail gives the copy up.
func (m *mirror) fail() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = true
	m.changed.Broadcast()
}
