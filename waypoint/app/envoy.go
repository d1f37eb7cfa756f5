package app

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/agent"
)

// runEnvoy serves with a real Envoy as the engine. It ends when Envoy does.
func runEnvoy(ctx context.Context, c *common) error {
	log := telemetry.Scoped(c.cfg.Log, "agent")
	sockets, err := agent.OpenSockets(ctx, c.cfg.Envoy.Dir, c.cfg.upstream(c.cfg.XDS), c.Get, log)
	if err != nil {
		return err
	}
	defer sockets.Close()
	node, err := c.node.Proto()
	if err != nil {
		return err
	}
	bootstrap, err := agent.Bootstrap(agent.BootstrapConfig{
		Node: node, Admin: c.cfg.AdminAddr, Agent: c.cfg.MetricsAddr, Stats: c.cfg.EngineMetricsAddr, Readiness: c.cfg.ReadinessAddr,
		XDS: sockets.XDS, SDS: sockets.SDS, Zipkin: c.cfg.zipkin(),
	})
	if err != nil {
		return err
	}
	e := &envoy{common: c, door: agent.Door{URL: "http://" + c.cfg.AdminAddr}, ending: make(chan struct{})}
	var addresses Addresses
	if err := c.serve(ctx, port{c.cfg.MetricsAddr, e.handler(), &addresses.Metrics}); err != nil {
		return err
	}
	process, err := agent.Start(bootstrap, agent.ProcessConfig{
		Binary: c.cfg.Envoy.Binary, Dir: c.cfg.Envoy.Dir, LogLevel: c.cfg.Envoy.LogLevel, ComponentLogLevel: c.cfg.Envoy.ComponentLogLevel,
		Concurrency: c.cfg.Envoy.Concurrency, DrainTime: c.cfg.Drain.Listener, Output: os.Stdout, Log: log,
	})
	if err != nil {
		return err
	}
	if c.cfg.Started != nil {
		c.cfg.Started(addresses)
	}
	select {
	case <-process.Done():
		return process.Err()
	case <-ctx.Done():
	}
	e.drain(context.WithoutCancel(ctx), process)
	process.Stop()
	return nil
}

// envoy is what is left to do beside a running Envoy.
type envoy struct {
	*common
	door   agent.Door
	ending chan struct{} // closed when the end begins
}

// handler serves the merged metrics and the probe, which Envoy's own readiness listener leads to.
func (e *envoy) handler() http.Handler {
	mux := http.NewServeMux()
	own := promhttp.HandlerFor(prometheus.Gatherer(e.registry), promhttp.HandlerOpts{DisableCompression: true})
	metrics := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept") // Envoy's part is in the text format, so ours is too
		own.ServeHTTP(w, r)
		text, err := e.door.Metrics(r.Context())
		if err != nil {
			e.cfg.Log.Warn("metrics of Envoy", "error", err)
			return
		}
		if _, err := w.Write(text); err != nil {
			e.cfg.Log.Debug("answer a scrape", "error", err)
		}
	}
	mux.HandleFunc("GET /stats/prometheus", metrics)
	mux.HandleFunc("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-e.ending:
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		default:
		}
		if err := e.door.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux
}

// drain lets clients go elsewhere before Envoy ends.
func (e *envoy) drain(ctx context.Context, process *agent.Process) {
	close(e.ending)
	if err := e.door.Drain(ctx); err != nil {
		e.cfg.Log.Warn("drain Envoy", "error", err)
		return
	}
	e.cfg.Log.Info("draining Envoy", "for", e.cfg.Drain.accepting())
	over := time.After(e.cfg.Drain.accepting())
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	minimum := false
	for {
		select {
		case <-process.Done():
			return
		case <-over:
			if minimum = true; !e.cfg.Drain.ExitOnZero {
				return
			}
		case <-ticker.C:
		}
		if !minimum || !e.cfg.Drain.ExitOnZero {
			continue
		}
		if active, err := e.door.Active(ctx); err != nil || active == 0 {
			return
		}
	}
}
