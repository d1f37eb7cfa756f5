package proxy

import (
	"context"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// HTTP/2 error codes of aborted exchanges (RFC 9113 section 7).
const (
	codeNo       = 0
	codeInternal = 2
)

// exchange is one request and its answer. It is reused for one request after the other.
type exchange struct {
	// immutable
	srv    *Server
	guard  *guard
	cancel func()              // of stream
	inform func(*httpmsg.Head) // of s

	// of the request under way; touched by the goroutine of its handler only, unless said otherwise
	c        *httpConn
	s        httpmsg.ServerStream
	snap     *snapshot
	binding  *binding
	head     *httpmsg.Head
	req      l7.Request
	decision l7.Decision
	record   Record
	local    httpmsg.Head  // of replies of ours
	asked    *httpmsg.Head // the head as it came, of a request that may become a tunnel
	// unexpecting is head without the wish for a 100; it shares its fields.
	unexpecting httpmsg.Head
	info        l7.ResponseInfo

	body      requestBody
	stream    upstream.Stream
	cluster   *upstream.Cluster
	host      *upstream.Host
	choice    upstream.Choice
	attempt   uint32
	retrying  bool // one of the cluster's retries is reserved
	responded bool // the head of the response was sent
	held      bool // the stream is open until the record was told
	requests  grpcCounter
	responses grpcCounter
}

func newExchange(s *Server) *exchange {
	x := &exchange{srv: s, guard: newGuard()}
	x.cancel, x.inform = x.stream.Cancel, x.passOn
	x.body.x = x
	x.body.changed.L = &x.body.mu
	return x
}

// reset forgets the request, so that the exchange can serve another one.
func (x *exchange) reset() {
	x.local.Reset()
	x.unexpecting = httpmsg.Head{}
	tried := x.choice.Tried[:0]
	clear(x.choice.Tried)
	x.choice = upstream.Choice{Tried: tried}
	x.c, x.s, x.snap, x.binding, x.head, x.cluster, x.host = nil, nil, nil, nil, nil, nil, nil
	x.decision, x.record, x.info = l7.Decision{}, Record{}, l7.ResponseInfo{}
	x.asked = nil
	x.attempt, x.retrying, x.responded, x.held = 0, false, false, false
	x.requests, x.responses = grpcCounter{}, grpcCounter{}
	x.body.reset()
}

// run answers a request: the tables decide, then it is answered here or carried to a host.
func (x *exchange) run(ctx context.Context, c *httpConn, s httpmsg.ServerStream) {
	now := x.srv.deps.Clock()
	x.c, x.s, x.head = c, s, s.Request()
	x.binding, x.snap = c.chain(x.srv.current.Load())
	c.stats.rqTotal.Add(1)
	c.stats.rqActive.Add(1)
	x.begin(now)
	x.asked = keepHead(x.head)
	x.req.Begin(x.head, &c.conn)
	x.guard.begin(ctx, s, now)
	if !x.binding.admitted {
		s.Reset(codeInternal)
		x.record.Details = "connection_not_admitted"
	} else {
		x.snap.cfg.Decide(&x.decision, x.binding.chain, &x.req, now, x.srv.deps.Rand)
		if x.decision.IdleTimeout > 0 {
			x.guard.idleAfter(x.decision.IdleTimeout)
		}
		if x.decision.Ask == nil || x.consult(now) { //nolint:contextcheck // the guard is the context
			x.record.Flags |= x.decision.Flags
			x.carry(now) //nolint:contextcheck // the guard is the context
		}
	}
	x.guard.end()
	x.body.finish()
	x.end()
	if x.held {
		x.stream.Close() // not before: the record shows the response's own memory
	}
}

// begin fills the record with the request as it came.
func (x *exchange) begin(now time.Time) {
	c, h := x.c, x.head
	x.record = Record{
		Kind: KindRequest, Start: now, Listener: c.listener, Chain: x.binding.chain, Conn: &c.conn, Tunnel: c.tunnel, Source: c.source,
		ConnectionID: c.conn.ID, Request: &x.req, Protocol: h.Version, Method: h.Method, Path: h.Path, Authority: h.Authority,
		Scheme: h.Scheme, Header: &h.Header, GRPCStatus: -1, ContentLength: -1, Decision: &x.decision,
	}
}

// carry does what was decided.
func (x *exchange) carry(now time.Time) {
	d := &x.decision
	if d.Delay > 0 && !x.wait(d.Delay) {
		x.abandon()
		return
	}
	x.record.ClusterName, x.record.Cluster, x.record.RouteName = d.ClusterName, d.Cluster, d.RouteName
	if d.Reply != nil {
		x.reply(d.Reply)
		return
	}
	if d.MaxDuration > 0 {
		x.guard.set(deadlineMaxDuration, now.Add(d.MaxDuration))
	}
	if limit := x.binding.chain.HTTP.RequestTimeout; limit > 0 && !x.s.Ended() {
		x.guard.set(deadlineRequest, now.Add(limit))
	}
	if x.cluster = x.snap.clusters[d.ClusterName]; x.cluster == nil {
		x.reply(replyNoCluster)
		return
	}
	x.forward()
}

// replyNoCluster is for a cluster that went away between the decision and now.
var replyNoCluster = &l7.Reply{Status: 503, GRPCStatus: -1, Details: "cluster_not_found", Flags: l7.FlagNoCluster} //nolint:gochecknoglobals // immutable

// wait pauses; false says that the exchange is given up.
func (x *exchange) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-x.guard.waiting().Done():
			return false
		}
	}
}

// reply answers by ourselves; if a response has begun, it is cut instead.
func (x *exchange) reply(r *l7.Reply) {
	x.record.Flags |= r.Flags
	x.record.Details = r.Details
	if x.responded {
		x.cut()
		return
	}
	x.info = l7.ResponseInfo{Attempts: x.attempt, HostAddress: x.record.UpstreamHost, Now: x.srv.deps.Clock()}
	body := x.decision.LocalReply(&x.req, r, &x.info, &x.local)
	h2, unmodified := x.head.Version == httpmsg.HTTP2, x.local.Status == 304
	switch empty := x.local.ContentLength == 0; {
	case empty && (h2 || unmodified || x.head.Method == "HEAD"): // the end of the stream says it, or there never is a body
		x.local.ContentLength = -1
	case h2 && unmodified: // clients wait for what the length promises
		x.local.ContentLength = -1
	}
	x.record.Status, x.record.Response, x.record.ContentLength = x.local.Status, &x.local.Header, x.local.ContentLength
	x.responded = true
	x.guard.replies()
	x.announce()
	bare := body == "" || x.head.Method == "HEAD"
	err := x.s.Respond(&x.local, bare)
	if err == nil && !bare {
		if _, err = x.s.Write([]byte(body)); err == nil {
			err = x.s.Finish(nil)
		}
		x.record.BytesSent = uint64(len(body))
	}
	if err != nil {
		x.untaken()
	}
}

// untaken ends a reply that could not be written.
func (x *exchange) untaken() {
	if x.guard.aborted() != causeIdle {
		x.lost()
		return
	}
	x.c.stats.idleTimeout.Add(1)
	x.record.Flags |= l7.FlagStreamIdleTimeout
	x.record.Details = l7.ReplyStreamIdleTimeout.Details
	x.cut()
}

// cut ends a response that can't be completed, such that the client notices.
func (x *exchange) cut() {
	x.c.stats.rqTxReset.Add(1)
	x.s.Reset(codeInternal)
}

// lost accounts for a client that went away.
func (x *exchange) lost() {
	x.record.Flags |= l7.FlagDownstreamTermination
	x.record.Details = "downstream_remote_disconnect"
	x.c.stats.rqRxReset.Add(1)
	x.s.Reset(codeNo)
}

// abandon ends an exchange that was given up, in the way that fits the cause.
func (x *exchange) abandon() {
	switch x.guard.aborted() {
	case causeTimeout:
		x.c.stats.rqTimeout.Add(1)
		if x.cluster != nil {
			x.cluster.Count(upstream.EventTimeout, x.host)
			if x.host != nil && !x.responded {
				x.cluster.Failed(x.host, true)
			}
		}
		x.reply(l7.ReplyUpstreamTimeout)
	case causeIdle:
		x.c.stats.idleTimeout.Add(1)
		if x.received() {
			x.reply(l7.ReplyStreamIdleTimeoutComplete)
		} else {
			x.reply(l7.ReplyStreamIdleTimeout)
		}
	case causeMaxDuration:
		if x.received() {
			x.reply(l7.ReplyMaxDurationComplete)
		} else {
			x.reply(l7.ReplyMaxDuration)
		}
	case causeRequestTimeout:
		x.reply(l7.ReplyRequestTimeout)
	case causeNone, causePerTry, causePerTryIdle, causeGone:
		if x.cluster != nil {
			x.cluster.Count(upstream.EventCancelled, nil)
		}
		x.lost()
	}
}

// received is whether all of the request came.
func (x *exchange) received() bool { return x.body.complete() || x.s.Ended() }

// end completes the record and hands it over.
func (x *exchange) end() {
	r, stats := &x.record, x.c.stats
	r.Duration = x.srv.deps.Clock().Sub(r.Start)
	r.BytesReceived = x.body.received.Load()
	if r.RequestDone == 0 && x.body.complete() {
		r.RequestDone = x.body.doneAfter()
	}
	r.Attempts = x.attempt
	if r.GRPC = x.req.GRPC; r.GRPC {
		r.RequestMessages, r.ResponseMessages = x.requests.messages, x.responses.messages
		r.GRPCStatus = grpcStatus(r.Response, r.Trailer)
	}
	if class := r.Status / 100; class > 0 && class < len(stats.class) {
		stats.class[class].Add(1)
	}
	stats.rqActive.Add(-1)
	x.srv.deps.Observer.Ended(r)
}
