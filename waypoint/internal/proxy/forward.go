package proxy

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// forward carries the request to a host, and to others when the policy says so.
func (x *exchange) forward() {
	d := &x.decision
	tunnels := x.head.Upgrade != "" || x.head.Method == "CONNECT"
	x.choice.Rand, x.choice.Hash, x.choice.HashOK, x.choice.Conn = x.srv.deps.Rand, d.Hash, d.HashOK, &x.c.conn
	x.choice.Session = d.Session
	if d.Retry != nil {
		x.choice.Attempts = int(d.Retry.HostAttempts)
	}
	if d.ConnectTCP {
		x.connectTCP()
		return
	}
	x.body.prepare(d.Retry != nil && d.NumRetries > 0, x.srv.deps.Limits.RetryBuffer, x.srv.mirror(x, d.Mirrors))
	for x.guard.next() {
		x.attempt++
		if x.attempt > 1 {
			x.tellAttempt()
		}
		again := x.try(tunnels)
		if !again {
			return
		}
		if !x.guard.next() || !x.wait(d.Retry.BackOff(x.attempt, x.srv.deps.Rand)) {
			break
		}
	}
	x.endRetry()
	x.abandon()
}

// tellAttempt tells the next upstream which attempt it is, and how long it has.
func (x *exchange) tellAttempt() {
	if x.decision.AttemptCount {
		x.head.Header.Set("x-envoy-attempt-count", strconv.FormatUint(uint64(x.attempt), 10))
	}
	x.decision.TellTimeout(&x.req, x.body.since(x.srv.deps.Clock()))
}

// armTimeouts starts the timeouts that count from the end of the request; underWay is whether an attempt is.
func (x *exchange) armTimeouts(now time.Time, underWay bool) {
	if d := &x.decision; d.Timeout > 0 {
		x.guard.set(deadlineTimeout, now.Add(d.Timeout))
	}
	if underWay {
		x.armPerTry(now)
	}
}

func (x *exchange) armPerTry(now time.Time) {
	d := &x.decision
	if d.PerTry > 0 {
		x.guard.set(deadlinePerTry, now.Add(d.PerTry))
	}
}

// try makes one attempt and tells whether another one follows.
func (x *exchange) try(tunnels bool) (again bool) {
	d := &x.decision
	x.host = x.cluster.Pick(&x.choice)
	if x.host == nil {
		x.endRetry()
		x.reply(x.noHost())
		return false
	}
	x.choice.Session = l7.SessionHost{} // another attempt goes anywhere
	if d.Retry != nil && d.Retry.PreviousHosts {
		x.choice.Tried = append(x.choice.Tried, x.host)
	}
	endpoint := x.host.Endpoint()
	x.record.Endpoint, x.record.UpstreamHost, x.record.UpstreamFailure = endpoint, x.host.Address(), ""
	if d.AutoHost && endpoint.Hostname != "" {
		x.head.Authority = endpoint.Hostname
	}
	if x.body.complete() {
		x.armPerTry(x.srv.deps.Clock())
	}
	if d.PerTryIdle > 0 {
		x.guard.perTryIdle(d.PerTryIdle)
	}
	none := x.body.empty()
	if none && !tunnels {
		x.sayEmpty()
	}
	if err := x.host.Open(x.guard.waiting(), x.sendable(), none && !tunnels, x.head.Version, &x.stream); err != nil {
		return x.failed(upstream.Broken(err))
	}
	x.record.UpstreamLocal, x.record.UpstreamIdentity = x.stream.Local(), x.stream.Identity()
	x.guard.attach(x.cancel)
	if !none && !tunnels {
		x.body.attach(&x.stream)
	}
	again = x.answer()
	x.body.detach(x.cancel)
	x.guard.detach()
	if x.held = x.record.Response != nil && !again; !x.held {
		x.stream.Close()
	}
	return again
}

// noHost is the answer when no host may be taken. A session whose only host is gone may have one of its own.
func (x *exchange) noHost() *l7.Reply {
	s := &x.choice.Session
	if !s.Strict || s.Status == l7.ReplyNoHealthyUpstream.Status || x.cluster.Knows(s.Address) {
		return l7.ReplyNoHealthyUpstream
	}
	reply := *l7.ReplyNoHealthyUpstream
	reply.Status = s.Status
	return &reply
}

// sendable is the head as it goes upstream: a client that waits for a 100 gets it from us, and its body is sent at once.
func (x *exchange) sendable() *httpmsg.Head {
	if !x.head.Expects {
		return x.head
	}
	x.unexpecting = *x.head
	x.unexpecting.Expects = false
	return &x.unexpecting
}

// sayEmpty makes HTTP/1 hosts see that a request has no body where its method lets them expect one, as Envoy does.
func (x *exchange) sayEmpty() {
	h := x.head
	speaks := x.cluster.Config().HTTP
	if speaks == l7.UpstreamHTTP2 || speaks == l7.UpstreamSame && h.Version == httpmsg.HTTP2 {
		return
	}
	if h.ContentLength >= 0 {
		return
	}
	switch h.Method {
	case "GET", "HEAD", "DELETE", "TRACE":
	default:
		h.ContentLength = 0
	}
}

// answer waits for the response to an attempt and passes it on, unless another attempt is to follow.
func (x *exchange) answer() (again bool) {
	head, err := x.stream.Response(context.Background(), x.inform) // the guard cancels the stream
	if err != nil {
		return x.failed(x.stream.Broken(err))
	}
	x.guard.touch()
	x.cluster.Answered(x.host, head.Status)
	if x.decision.OnResponse(head) && x.mayRetry() {
		return true
	}
	if x.retrying && head.Status < 500 {
		x.cluster.Count(upstream.EventRetrySuccess, nil)
	}
	x.endRetry()
	if x.decision.PerTry > 0 || x.decision.PerTryIdle > 0 {
		x.guard.set(deadlinePerTry, time.Time{}) // the route's timeout alone bounds a response that has begun
		x.guard.perTryIdle(0)
	}
	x.respond(head)
	return false
}

// passOn passes an interim response on. A 100 is the codecs' own affair.
func (x *exchange) passOn(h *httpmsg.Head) {
	if h.Status == 103 {
		x.guard.waitFor(waitsRoom)
		_ = x.s.Inform(h) // if the client is gone, the response tells
		x.guard.waitFor(waitsNot)
	}
}

// failed ends an attempt without a response, and tells whether another follows.
func (x *exchange) failed(e *upstream.Error) (again bool) {
	failure := e.Failure()
	var reply *l7.Reply
	switch x.guard.why() {
	case causeNone:
		x.record.UpstreamFailure = e.Transport
		if e.Reason != upstream.Overflow {
			x.cluster.Failed(x.host, e.Reason == upstream.ConnectionTimeout)
		}
		if e.Reason == upstream.RemoteReset || e.Reason == upstream.RemoteRefused || e.Reason == upstream.ConnectionTermination {
			x.cluster.Count(upstream.EventReset, nil)
		}
	case causePerTry:
		x.cluster.Failed(x.host, true)
		x.cluster.Count(upstream.EventPerTryTimeout, x.host)
		failure, reply = l7.FailurePerTryTimeout, l7.ReplyPerTryTimeout
	case causePerTryIdle:
		failure, reply = l7.FailurePerTryTimeout, l7.ReplyPerTryIdleTimeout
	case causeTimeout:
		x.cluster.Failed(x.host, true) // the host has taken all the time that there was
		x.endRetry()
		x.abandon()
		return false
	case causeGone, causeIdle, causeMaxDuration, causeRequestTimeout:
		x.endRetry()
		x.abandon()
		return false
	}
	if x.decision.OnFailure(failure) && x.mayRetry() {
		return true
	}
	x.endRetry()
	if reply == nil {
		reply = replyReset(e, x.attempt > 1)
	}
	x.reply(reply)
	return false
}

// replyReset is the answer when upstream failed: 502 for a host that does not speak HTTP, 503 for the rest.
func replyReset(e *upstream.Error, retried bool) *l7.Reply {
	reason := e.Reason.String()
	r := &l7.Reply{Status: 503, GRPCStatus: -1, Flags: e.Reason.Flags()}
	var body strings.Builder
	body.WriteString("upstream connect error or disconnect/reset before headers. ")
	if retried {
		body.WriteString("retried and the latest ")
	}
	body.WriteString("reset reason: " + reason)
	details := underscored(reason)
	if e.Transport != "" {
		details += "|" + e.Transport
	}
	r.Body = body.String()
	r.Details = "upstream_reset_before_response_started{" + details + "}"
	switch e.Reason {
	case upstream.ProtocolError:
		r.Status = 502
	case upstream.Overflow:
		r.Header = l7.ReplyOverflow.Header
	case upstream.ConnectionFailure, upstream.ConnectionTimeout, upstream.ConnectionTermination, upstream.RemoteReset,
		upstream.RemoteRefused, upstream.LocalReset:
	}
	return r
}

// mayRetry is whether the limits allow one more attempt, which then is reserved. The exchange's failure is retriable.
func (x *exchange) mayRetry() bool {
	if !x.body.replayable() || x.guard.aborted() != causeNone {
		return false
	}
	if x.attempt > x.decision.NumRetries {
		x.record.Flags |= l7.FlagUpstreamRetryLimit
		x.cluster.Count(upstream.EventRetryLimitExceeded, nil)
		return false
	}
	if !x.retrying && !x.cluster.TakeRetry() {
		x.record.Flags |= l7.FlagUpstreamOverflow
		x.cluster.Count(upstream.EventRetryOverflow, nil)
		return false
	}
	x.retrying = true
	x.cluster.Count(upstream.EventRetry, nil)
	return true
}

// endRetry gives the cluster's reserved retry back.
func (x *exchange) endRetry() {
	if x.retrying {
		x.retrying = false
		x.cluster.EndRetry()
	}
}
