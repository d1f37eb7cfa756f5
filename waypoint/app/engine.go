package app

import (
	"context"
	"maps"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/accesslog"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/admin"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/agent"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/spans"
	counters "github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// The tasks that readiness waits for.
const (
	taskCertificate   = "certificate"
	taskConfiguration = "configuration"
)

// engine is the proxy with our own engine, assembled.
type engine struct {
	*common
	readiness    *admin.Readiness
	log          *accesslog.Log
	tracer       *spans.Tracer
	observer     *counters.Observer
	server       *proxy.Server
	subscription *xds.Subscription
	traffic      *prometheus.Registry // of the engine
	listeners    map[string]*l7.Listener
	drained      bool
}

func runEngine(ctx context.Context, c *common) error {
	e := &engine{common: c, readiness: admin.NewReadiness(taskCertificate, taskConfiguration), traffic: prometheus.NewRegistry()}
	if err := e.assemble(); err != nil { //nolint:contextcheck // what is made here ends by release, after the drain
		return err
	}
	defer e.release()                                               //nolint:contextcheck // what has ended waits for nothing
	working, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx by the drain
	talking := make(chan struct{})
	defer func() { stop(); <-talking }()
	go func() {
		defer close(talking)
		_ = e.subscription.Run(working) // ends with working only
	}()
	if err := e.open(ctx); err != nil {
		return err
	}
	c.tasks.Go(func() { e.await(ctx) })
	<-ctx.Done()
	e.drain(context.WithoutCancel(ctx))
	return nil
}

// assemble makes everything; nothing runs yet.
func (e *engine) assemble() error {
	metrics, err := counters.NewMetrics(e.traffic)
	if err != nil {
		return err
	}
	e.log = accesslog.New(accesslog.Config{
		Listener: func(name string) *l7.Listener { return e.server.Config().Listeners[name] },
		Send:     e.call, Node: e.node.ID(), Cluster: e.cfg.ServiceCluster, Zone: "",
		Log: telemetry.Scoped(e.cfg.Log, "accesslog"),
	})
	e.tracer = spans.New(e.spans())
	e.observer = counters.NewObserver(metrics, e.cfg.self(e.identity.String()), counters.Writers(e.log, e.tracer))
	e.server = proxy.New(proxy.Deps{
		Certs: e, Observer: e.observer, Log: telemetry.Scoped(e.cfg.Log, "proxy"),
		Limits: proxy.Limits{DrainGrace: e.cfg.Drain.accepting()}, Last: e.tell,
	})
	e.subscription, err = xds.Subscribe(xds.Config{
		Node: e.node, Upstream: e.cfg.upstream(e.cfg.XDS), Sink: e.use, CheckListener: checkListener,
		Registerer: e.registry, Log: telemetry.Scoped(e.cfg.Log, "xds"),
	})
	if err != nil {
		e.release()
		return err
	}
	e.traffic.MustRegister(counters.NewCollector(e.samples), prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "envoy_filesystem_write_dropped_total", Help: "Lines of access logs that were dropped because a file was too slow.",
	}, func() float64 { return float64(e.log.Dropped()) }))
	return nil
}

// use puts a configuration in force. It is called by one goroutine at a time.
func (e *engine) use(ctx context.Context, config *l7.Config) error {
	err := e.server.SetConfig(ctx, config)
	if !maps.Equal(e.listeners, config.Listeners) {
		e.listeners = config.Listeners
		e.log.Forget() // what was kept for chains that are gone
		e.tracer.Forget(config.Listeners)
		e.observer.Forget()
	}
	return err
}

func (e *engine) samples() []counters.Sample {
	return counters.Samples(e.server, append(admin.Discovery(e.subscription.Snapshot()), e.told()...)...)
}

func (e *engine) release() {
	if e.subscription != nil {
		e.subscription.Close()
	}
	if !e.drained {
		_ = e.server.Close()
	}
	e.tracer.Close()
	if err := e.log.Close(); err != nil {
		e.cfg.Log.Warn("close the access log", "error", err)
	}
}

// open opens the proxy's own ports.
func (e *engine) open(ctx context.Context) error {
	node, err := e.node.Proto()
	if err != nil {
		return err
	}
	bootstrap, err := agent.Bootstrap(agent.BootstrapConfig{
		Node: node, Admin: e.cfg.AdminAddr, Agent: e.cfg.MetricsAddr, Stats: e.cfg.EngineMetricsAddr, Readiness: e.cfg.ReadinessAddr,
		XDS: hostOf(e.cfg.XDS.URL), SDS: hostOf(e.cfg.CA.URL), Zipkin: e.cfg.zipkin(),
	})
	if err != nil {
		return err
	}
	door := &admin.Server{
		Engine: e.server, Snapshot: e.subscription.Snapshot, Certificates: e.certs.Snapshot, Bootstrap: bootstrap, Readiness: e.readiness,
		Samples: e.samples, Gatherer: e.traffic, Build: e.cfg.Build, Levels: e.cfg.Levels, Started: e.started, Quit: e.quit, Log: e.cfg.Log,
	}
	var addresses Addresses
	err = e.serve(ctx,
		port{e.cfg.AdminAddr, door.Handler(), &addresses.Admin},
		port{e.cfg.MetricsAddr, admin.MetricsHandler(prometheus.Gatherers{e.registry, e.traffic}, e.readiness), &addresses.Metrics},
		port{e.cfg.ReadinessAddr, admin.ReadinessHandler(e.readiness), &addresses.Readiness},
		port{e.cfg.EngineMetricsAddr, admin.MetricsHandler(e.traffic, nil), &addresses.EngineMetrics},
	)
	if err != nil {
		return err
	}
	e.cfg.Log.Info("proxy serves", "kind", string(e.cfg.Kind), "node", e.node.ID(), "admin", addresses.Admin, "readiness", addresses.Readiness)
	if e.cfg.Started != nil {
		e.cfg.Started(addresses)
	}
	return nil
}

// await completes the tasks of readiness.
func (e *engine) await(ctx context.Context) {
	for {
		_, err := e.Get(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		e.cfg.Log.Warn("no certificate yet", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
	e.readiness.Done(taskCertificate)
	select {
	case <-e.subscription.Ready():
		e.readiness.Done(taskConfiguration)
		e.cfg.Log.Info("ready")
	case <-ctx.Done():
	}
}

// drain lets clients go elsewhere. The control plane keeps informing meanwhile.
func (e *engine) drain(ctx context.Context) {
	e.readiness.End()
	limit := e.cfg.Drain.limit()
	e.cfg.Log.Info("draining", "accepting", e.cfg.Drain.accepting(), "limit", limit)
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	if err := e.server.Drain(ctx); err != nil {
		e.cfg.Log.Warn("connections were cut", "error", err)
	}
	e.drained = true
	e.subscription.Close() // nothing is opened any more
	e.cfg.Log.Info("drained")
}

// accepting is how long new connections are still taken while clients are told to go elsewhere: others may hear late that this
// proxy leaves.
func (d Drain) accepting() time.Duration {
	if d.ExitOnZero {
		return d.Minimum
	}
	return d.Termination
}

// limit is when open connections are cut; 0 is never.
func (d Drain) limit() time.Duration {
	if d.ExitOnZero {
		return 0
	}
	margin := 2 * time.Second
	return max(2*d.Termination, d.Grace-margin)
}

func hostOf(address string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return address
	}
	return parsed.Host
}

// zipkin is where traces would go.
func (c Config) zipkin() string {
	if address := c.ProxyConfig.GetTracing().GetZipkin().GetAddress(); address != "" {
		return address
	}
	return "zipkin.istio-system:9411"
}
