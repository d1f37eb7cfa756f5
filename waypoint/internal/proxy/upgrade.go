package proxy

import (
	"context"
	"errors"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// tunnel joins both ends after the host accepted an upgrade or a CONNECT.
func (x *exchange) tunnel(head *httpmsg.Head) {
	up, err := x.stream.Tunnel()
	if err != nil {
		x.record.Details = "upgrade_failed"
		x.cancel()
		x.cut()
		return
	}
	if err := x.s.Respond(head, false); err != nil {
		x.lostOrAborted()
		return
	}
	x.join(up)
}

// join relays between the client's end of an accepted upgrade and up, which it closes.
func (x *exchange) join(up netx.Stream) {
	down, err := x.s.Tunnel()
	if err != nil {
		up.Close()
		x.lost()
		return
	}
	x.guard.waitFor(waitsNot)                                       // whoever gives up ends the relay
	x.guard.set(deadlineTimeout, x.record.Start.AddDate(100, 0, 0)) // a tunnel is not a response that is late
	ctx, stop := context.WithCancelCause(x.guard.waiting())
	defer stop(nil)
	if x.asked != nil {
		t := &upgraded{c: x.c, head: x.asked, start: x.record.Start, cancel: stop}
		x.srv.upgrades.add(t)
		defer x.srv.upgrades.remove(t)
		t.rejudge(x.srv) // the policies may have changed since the request was decided about
	}
	var bytes netx.Counters
	if x.decision.IdleTimeout > 0 {
		defer watchIdle(x.decision.IdleTimeout, &bytes, func() { stop(errIdle) })()
		x.guard.idleAfter(0)
	}
	err = netx.Relay(ctx, down, up, &bytes)
	if why := context.Cause(ctx); errors.Is(why, errPolicy) {
		err = why
	}
	x.body.received.Add(bytes.Sent.Load())
	x.record.BytesSent += bytes.Received.Load()
	var broken *netx.RelayError
	switch {
	case err == nil:
	case errors.As(err, &broken) && broken.Upstream:
		x.record.Flags |= l7.FlagUpstreamConnectionTermination
		x.record.Details = "upstream_reset_after_response_started{connection_termination}"
	case errors.Is(err, errPolicy):
		x.record.Details, x.record.Termination = "closed_due_to_policy_change", err.Error()
	case errors.Is(err, errIdle):
		x.record.Flags |= l7.FlagStreamIdleTimeout
		x.record.Details = "stream_idle_timeout"
	case errors.As(err, &broken):
		x.record.Flags |= l7.FlagDownstreamTermination
		x.record.Details = "downstream_remote_disconnect"
	case x.guard.aborted() == causeMaxDuration:
		x.record.Flags |= l7.FlagDurationTimeout
		x.record.Details = "max_duration_timeout"
	}
}

// connectTCP ends a CONNECT here and carries its bytes to a host.
func (x *exchange) connectTCP() {
	x.guard.next()
	x.attempt = 1
	if x.host = x.cluster.Pick(&x.choice); x.host == nil {
		x.reply(x.noHost())
		return
	}
	x.record.Endpoint, x.record.UpstreamHost = x.host.Endpoint(), x.host.Address()
	nc, release, err := x.cluster.Dial(x.guard.waiting(), x.host)
	if err != nil {
		e := upstream.Broken(err)
		x.record.UpstreamFailure = e.Transport
		if x.guard.aborted() != causeNone {
			x.abandon()
		} else {
			x.reply(replyReset(e, false))
		}
		return
	}
	defer release()
	up, ok := nc.(netx.Stream)
	if !ok {
		up = halfless{nc}
	}
	now := x.srv.deps.Clock()
	x.info = l7.ResponseInfo{Attempts: 1, HostAddress: x.record.UpstreamHost, Now: now}
	x.local = httpmsg.Head{Version: x.head.Version, Status: 200, ContentLength: -1}
	x.decision.ApplyResponse(&x.req, &x.local, &x.info)
	x.record.Status, x.record.Response, x.record.Details = 200, &x.local.Header, "via_upstream"
	x.responded = true
	x.guard.waitFor(waitsRoom)
	if err := x.s.Respond(&x.local, false); err != nil {
		up.Close()
		x.lostOrAborted()
		return
	}
	x.join(up)
}

func underscored(s string) string { return strings.ReplaceAll(s, " ", "_") }
