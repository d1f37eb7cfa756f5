package app

import (
	"context"
	"errors"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/accesslog"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/export"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/spans"
	counters "github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// call sends to a cluster, over the engine's own connections.
func (e *engine) call(ctx context.Context, cluster string, head *httpmsg.Head, body []byte) error {
	return e.server.Call(ctx, cluster, head, body)
}

// spans is how traces are told.
func (e *engine) spans() spans.Config {
	config := spans.Config{
		Service: e.cfg.ServiceCluster, Node: e.node.ID(), Version: e.cfg.Build.Version, Send: e.call, Log: telemetry.Scoped(e.cfg.Log, "tracing"),
		Environment: func(name string) (string, bool) { v, ok := e.cfg.Environment[name]; return v, ok },
	}
	if len(e.cfg.InstanceIPs) > 0 {
		config.Address = e.cfg.InstanceIPs[0].String()
	}
	return config
}

// tell sends what waits for collectors while there still are connections to them.
func (e *engine) tell() {
	e.tracer.Close()
	e.log.Flush()
}

// told are the counters of what was sent to collectors.
func (e *engine) told() []counters.Sample {
	sample := func(scope, name string, c *export.Counters) []counters.Sample {
		return []counters.Sample{
			{Scope: scope, Name: name + "_sent", Value: float64(c.Sent.Load()), Counter: true},
			{Scope: scope, Name: name + "_dropped", Value: float64(c.Dropped.Load()), Counter: true},
		}
	}
	out := sample("tracing", "opentelemetry.spans", e.tracer.OpenTelemetry())
	out = append(out, sample("tracing", "zipkin.spans", e.tracer.Zipkin())...)
	out = append(out, sample("access_logs", "open_telemetry_access_log.logs", e.log.Collected())...)
	return append(out, limitSamples(e.server.Config())...)
}

// limitSamples are the counters of rate limits.
func limitSamples(config *l7.Config) (out []counters.Sample) {
	for _, s := range config.LimitStats() {
		for _, n := range []struct {
			name  string
			value uint64
		}{{"enabled", s.Enabled}, {"ok", s.OK}, {"rate_limited", s.RateLimited}, {"enforced", s.Enforced}} {
			out = append(out, counters.Sample{Scope: counters.LocalRateLimit, Owner: s.StatPrefix, Name: n.name, Value: float64(n.value), Counter: true})
		}
	}
	return out
}

// checkListener is whether what a listener tells can be told.
func checkListener(l *l7.Listener) error {
	return errors.Join(accesslog.Check(l), spans.Check(l), counters.Check(l))
}
