package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/debug"
	"github.com/isthmus-mesh/isthmus/pilot/internal/meshconfig"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	envoyxds "github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	l7policy "github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// serveState serves what tells people and probes about the control plane, from the start.
func (p *plane) serveState(ctx context.Context, g *errgroup.Group) error {
	opened, err := listen(ctx, p.cfg.HTTPAddr, p.cfg.MonitoringAddr)
	if err != nil {
		return err
	}
	p.addresses.HTTP, p.addresses.Monitoring = opened[0].Addr(), opened[1].Addr()
	p.serveHTTP(ctx, g, opened[0], p.statusHandler())
	p.serveHTTP(ctx, g, opened[1], p.monitoringHandler())
	if p.cfg.ControlAddr == "" || p.cfg.Levels == nil {
		return nil
	}
	control, err := listen(ctx, p.cfg.ControlAddr)
	if err != nil {
		// Nothing depends on it, and two control planes on one machine are no mistake.
		p.cfg.Log.Warn("log levels cannot be changed", "error", err)
		return nil
	}
	p.serveHTTP(ctx, g, control[0], debug.Scopes(p.cfg.Levels))
	return nil
}

// serve opens the other ports, then serves them until ctx ends.
func (p *plane) serve(ctx context.Context, g *errgroup.Group) error {
	addrs := []string{p.cfg.GRPCAddr, p.cfg.SecureGRPCAddr}
	if p.controllers.webhook != nil {
		addrs = append(addrs, p.cfg.HTTPSAddr)
	}
	opened, err := listen(ctx, addrs...)
	if err != nil {
		return err
	}
	p.serveGRPC(ctx, g, opened[0])
	p.serveGRPC(ctx, g, opened[1], grpc.Creds(credentials.NewTLS(p.pki.tlsConfig())))
	a := &p.addresses
	a.GRPC, a.SecureGRPC = opened[0].Addr(), opened[1].Addr()
	if p.controllers.webhook != nil {
		a.HTTPS = opened[2].Addr()
		p.serveHTTP(ctx, g, tls.NewListener(opened[2], p.pki.webhookTLS()), p.controllers.webhook.Handler())
	}
	p.ready.Store(true)
	p.cfg.Log.Info("control plane serves", "http", a.HTTP, "https", a.HTTPS, "grpc", a.GRPC, "secure_grpc", a.SecureGRPC, "monitoring", a.Monitoring)
	if p.cfg.Started != nil {
		p.cfg.Started(*a)
	}
	return nil
}

// listen opens all ports or none.
func listen(ctx context.Context, addrs ...string) ([]net.Listener, error) {
	var opened []net.Listener
	var config net.ListenConfig
	for _, addr := range addrs {
		l, err := config.Listen(ctx, "tcp", addr)
		if err != nil {
			for _, open := range opened {
				open.Close()
			}
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		opened = append(opened, l)
	}
	return opened, nil
}

// serveGRPC serves the same services on every port; each decides by the connection whether it answers there.
func (p *plane) serveGRPC(ctx context.Context, g *errgroup.Group, l net.Listener, more ...grpc.ServerOption) {
	options := append(server.Options(server.Transport{MaxConnectionAge: p.cfg.MaxConnectionAge}), grpc.WaitForHandlers(true))
	options = append(options, more...)
	s := grpc.NewServer(options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(s, p.xds)
	authv1.RegisterIstioCertificateServiceServer(s, p.pki.service)
	g.Go(func() error { return s.Serve(l) })
	// xDS streams never end by themselves: there is nothing to wait for.
	g.Go(func() error { <-ctx.Done(); s.Stop(); return nil })
}

func (p *plane) serveHTTP(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug)}
	g.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve on %s: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if err := s.Shutdown(end); err != nil {
			return s.Close()
		}
		return nil
	})
}

func (p *plane) statusHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if !p.ready.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	mux.Handle("/debug/", p.security.protect(p.security.debug.Handler()))
	return mux
}

func (p *plane) monitoringHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(p.cfg.Build); err != nil {
			p.cfg.Log.Debug("answer /version", "error", err)
		}
	})
	mux.Handle("/debug/", p.security.protect(p.security.debug.Handler()))
	return mux
}

func (p *plane) debugServer() *debug.Server {
	return &debug.Server{
		Registry: p.registry,
		Allow:    p.security.mayDebug,
		Statuses: p.statuses.Documents,
		Errors:   p.problems.Objects,
		Problems: p.problemsOfAll,
		Mesh:     func() proto.Message { return p.settings.Load().Proto },
		Build:    p.cfg.Build,
		Profile:  p.cfg.Profile,
		Instance: p.cfg.PodName,
		Revision: p.cfg.Revision,
	}
}

// applyMesh puts a new version of the mesh configuration in force.
func (p *plane) applyMesh(s meshconfig.Settings) {
	p.settings.Store(&s)
	for _, problem := range slices.Concat(l7policy.AccessLogProblems(s.Proto), envoyxds.OptionProblems(s.Proto)) {
		telemetry.Scoped(p.cfg.Log, "config").Warn("part of the mesh configuration has no effect", "problem", problem)
	}
	p.registry.SetMesh(p.mesh(s))
	p.refresh()
	p.controllers.meshChanged()
}

func (p *plane) mesh(s meshconfig.Settings) registry.Mesh {
	m := s.Mesh(p.cfg.ClusterID, p.cfg.Network, p.cfg.Domain)
	m.Config, m.DryRun, m.HTTP10 = s.Proto, p.cfg.DryRunPolicies, p.cfg.HTTP10
	return m
}

func (p *plane) registerProcessMetrics(started time.Time) error {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pilot_info", Help: "Version of this control plane, in its label."}, []string{"version"})
	info.WithLabelValues(p.cfg.Build.String()).Set(1)
	uptime := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "istiod_uptime_seconds", Help: "Seconds since the start."}, func() float64 {
		return time.Since(started).Seconds()
	})
	clusters := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istiod_managed_clusters", Help: "Clusters managed."}, []string{"cluster_type"})
	clusters.WithLabelValues("local").Set(1)
	err := telemetry.RegisterBuild(p.metrics, "pilot", p.cfg.Build)
	for _, c := range []prometheus.Collector{info, uptime, clusters, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		err = errors.Join(err, p.metrics.Register(c))
	}
	return err
}
