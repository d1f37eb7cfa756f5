package l7

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// telemetry completes what chains say about telemetry by what the listener does.
func (l *Listener) telemetry(p *listenerv3.Listener) {
	egress := p.GetTrafficDirection() == corev3.TrafficDirection_OUTBOUND
	for _, ch := range append(l.Chains[:len(l.Chains):len(l.Chains)], l.Default) {
		if ch != nil && ch.HTTP != nil && ch.HTTP.Tracing != nil {
			ch.HTTP.Tracing.Egress = egress
		}
	}
}

// beginSpan finds out whether the request is traced.
func (d *Decision) beginSpan(r *Request, rnd Rand) {
	t := d.manager.Tracing
	if t == nil {
		return
	}
	operation := ""
	if d.Route != nil {
		operation = d.Route.Operation
	}
	d.Span = t.Begin(&r.Info, operation, rnd)
}

// passSpan tells upstream.
func (d *Decision) passSpan(r *Request) {
	if d.Span != nil && d.Reply == nil {
		d.Span.Inject(&r.Info)
	}
}

// decorate tells a client what the request was, by which its own span may be named; and learns it from a server.
func (d *Decision) decorate(h *httpmsg.Header) {
	s := d.Span
	if s == nil {
		return
	}
	const key = "x-envoy-decorator-operation"
	if !s.Config.Egress {
		if s.Decorated != "" {
			h.Set(key, s.Decorated)
		}
		return
	}
	if v, ok := h.Get(key); ok {
		if v != "" {
			s.Name = v
		}
		h.Del(key)
	}
}

// ReportEvery is how often the bytes of an open connection are counted; otherwise is for a chain that does not say.
func (ch *Chain) ReportEvery(otherwise time.Duration) time.Duration {
	if s := ch.Told.GetFields()["reporting_interval_seconds"].GetNumberValue(); s > 0 {
		return time.Duration(s * float64(time.Second))
	}
	return otherwise
}
