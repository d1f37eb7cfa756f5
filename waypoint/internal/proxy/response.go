package proxy

import (
	"errors"
	"io"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// respond passes a response on.
func (x *exchange) respond(head *httpmsg.Head) {
	now := x.srv.deps.Clock()
	x.record.TimeToFirstByte = now.Sub(x.record.Start)
	x.info = l7.ResponseInfo{Upstream: head.Status != 101, ServiceTime: now.Sub(x.sentAt(now)), Attempts: x.attempt, Host: x.record.Endpoint, HostAddress: x.record.UpstreamHost, Now: now}
	x.decision.ApplyResponse(&x.req, head, &x.info)
	x.record.Status, x.record.Response, x.record.Details = head.Status, &head.Header, "via_upstream"
	x.record.ContentLength = head.ContentLength
	x.responded = true
	x.guard.waitFor(waitsRoom)
	if head.Status == 101 || x.head.Method == "CONNECT" && head.Status >= 200 && head.Status < 300 {
		x.tunnel(head)
		return
	}
	ended := x.stream.Ended()
	x.announce()
	if err := x.s.Respond(head, ended && x.stream.Trailer() == nil); err != nil {
		x.lostOrAborted()
		return
	}
	switch {
	case !ended:
		x.copyBody(head.ContentLength)
	case x.stream.Trailer() != nil:
		x.finishResponse()
	}
}

// announce makes the response say that it is the connection's last, if it is. The codec says so of a response to a client that
// was promised a 100 and got none: for what follows is not known to be a body or a request.
func (x *exchange) announce() {
	if x.head.Version != httpmsg.HTTP2 && x.c.last() && x.body.settled() {
		x.head.Expects = true
	}
}

// sentAt is when the request was complete; before that, now.
func (x *exchange) sentAt(now time.Time) time.Time {
	x.body.mu.Lock()
	defer x.body.mu.Unlock()
	if x.body.doneAt.IsZero() {
		return now
	}
	return x.body.doneAt
}

// copyBody moves the response's body as it comes. What is held back is sent before waiting for more.
func (x *exchange) copyBody(length int64) {
	buf := netx.Pool.Get(netx.MediumBuffer)
	defer func() { netx.Pool.Put(buf) }()
	full := 0
	// A small body whose length is known is about to come: it goes with the head.
	held := length > 0 && length <= inlineBody
	for {
		if held {
			held = false
		} else if x.stream.Buffered() == 0 {
			if err := x.s.Flush(); err != nil {
				x.lostOrAborted()
				return
			}
		}
		n, err := x.stream.Read(buf)
		if n > 0 {
			x.guard.touch()
			if x.req.GRPC {
				x.responses.add(buf[:n])
			}
			if _, werr := x.s.Write(buf[:n]); werr != nil {
				x.lostOrAborted()
				return
			}
			x.record.BytesSent += uint64(n)
		}
		if errors.Is(err, io.EOF) || err == nil && n > 0 && x.stream.Ended() {
			x.finishResponse()
			return
		}
		if err != nil {
			x.brokenResponse(err)
			return
		}
		if n < len(buf) {
			full = 0
		} else if full++; full == 4 && len(buf) < netx.LargeBuffer {
			netx.Pool.Put(buf)
			buf = netx.Pool.Get(netx.LargeBuffer)
		}
	}
}

func (x *exchange) finishResponse() {
	x.record.Trailer = x.stream.Trailer()
	if err := x.s.Finish(x.record.Trailer); err != nil {
		x.lostOrAborted()
	}
}

// lostOrAborted is for a response that could not be written: the client went away, or the exchange was given up.
func (x *exchange) lostOrAborted() {
	if x.guard.aborted() != causeNone {
		x.abandon()
		return
	}
	x.cluster.Count(upstream.EventCancelled, nil)
	x.lost()
}

// brokenResponse is for a response that ends before its time.
func (x *exchange) brokenResponse(err error) {
	if x.guard.aborted() != causeNone {
		x.abandon()
		return
	}
	e := x.stream.Broken(err)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e.Reason = upstream.ProtocolError // the message is shorter than it said
	}
	x.cluster.Count(upstream.EventReset, nil)
	x.record.Flags |= e.Reason.Flags()
	x.record.Details = "upstream_reset_after_response_started{" + underscored(e.Reason.String()) + "}"
	x.record.UpstreamFailure = e.Transport
	x.cut()
}
