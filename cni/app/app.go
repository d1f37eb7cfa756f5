// Package app runs the node agent: installation, objects, enrolment, and the sockets of the plugin and the proxy.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isthmus-mesh/isthmus/cni/internal/install"
	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/nodeagent"
	"github.com/isthmus-mesh/isthmus/cni/internal/zds"
	"github.com/isthmus-mesh/isthmus/cni/redirect/host"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// repairEvery is how often the installation is looked at.
const repairEvery = 2 * time.Second

// Config of the node agent.
type Config struct {
	Node string
	// ConfigDir holds the objects; APISocket takes the annotations.
	ConfigDir, APISocket string
	// ZDSSocket is for ztunnel, PluginSocket for the CNI plugin.
	ZDSSocket, PluginSocket string
	// PluginSource, BinDir and NetDir are where the plugin comes from and goes to. An empty PluginSource installs nothing.
	PluginSource, BinDir, NetDir string
	// StateFile keeps the node's pods over a restart of the agent.
	StateFile         string
	ExcludeNamespaces []string
	Redirect          plan.Config
	// HealthAddr serves /healthz, /readyz and /status, MonitoringAddr /metrics.
	HealthAddr, MonitoringAddr string
	// CleanUp takes the plugin off the node at the end.
	CleanUp bool
	Build   telemetry.Build
	Log     *slog.Logger
}

// Default is the configuration of a node with nothing special.
func Default() Config {
	return Config{
		ZDSSocket: "/var/run/ztunnel/ztunnel.sock", PluginSocket: "/var/run/istio-cni/pluginevent.sock",
		BinDir: "/opt/cni/bin", NetDir: "/etc/cni/net.d", StateFile: "/var/run/istio-cni/pods.json",
		ExcludeNamespaces: []string{"istio-system", "kube-system"}, Redirect: plan.DefaultConfig(),
		HealthAddr: ":8000", MonitoringAddr: ":15014", Build: telemetry.NewBuild("", ""),
	}
}

func (c Config) validate() error {
	switch {
	case c.Log == nil:
		return errors.New("start the node agent: no logger")
	case c.Node == "":
		return errors.New("start the node agent: the node's name is missing: set --node or NODE_NAME")
	case c.ConfigDir == "":
		return errors.New("start the node agent: there is no source of pods: name a directory of manifests with --config-dir (reading from the Kubernetes API is not part of this release)")
	case c.APISocket == "":
		return errors.New("start the node agent: nobody takes annotations: set --api-socket")
	}
	return nil
}

// daemon is the agent, assembled.
type daemon struct {
	cfg       Config
	agent     *nodeagent.Agent
	proxies   *zds.Server
	annotator *nodeagent.PatchAnnotator
	hostNS    *os.File
	rules     *host.Rules
	registry  *prometheus.Registry
	installed atomic.Bool
	ready     atomic.Bool
	installs  *prometheus.CounterVec
	readiness prometheus.Gauge
}

// Run serves until ctx ends. Pods stay enrolled then.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d, err := assemble(ctx, cfg)
	if err != nil {
		return err
	}
	defer d.close()
	g := &group{cancel: cancel}
	defer func() { cancel(); _ = g.wait() }() // its error has been returned by then
	if err := d.serve(ctx, g); err != nil {
		return err
	}
	source := kube.NewFileSource(cfg.ConfigDir, telemetry.Scoped(cfg.Log, "source"), nil)
	g.run(func() error { return source.Run(ctx, d.agent) })
	g.run(func() error { d.keepInstalled(ctx); return nil })
	g.run(func() error {
		if d.agent.WaitSynced(ctx) != nil {
			return nil
		}
		if err := d.rules.Install(d.agent.EnrolledAddresses()); err != nil {
			return err
		}
		d.agent.Restore() //nolint:contextcheck // the agent has its own
		g.run(func() error { return d.proxies.Serve(ctx) })
		d.ready.Store(true)
		d.agent.Run(ctx)
		return nil
	})
	<-ctx.Done()
	err = g.wait()
	if cfg.CleanUp {
		err = errors.Join(err, install.Unchain(d.installation()), d.rules.Purge())
	}
	return err
}

func assemble(ctx context.Context, cfg Config) (*daemon, error) {
	d := &daemon{
		cfg: cfg, registry: prometheus.NewRegistry(), annotator: nodeagent.NewPatchAnnotator(cfg.APISocket),
		installs:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_cni_installs_total", Help: "Installations of the plugin, repairs among them."}, []string{"result"}),
		readiness: prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_cni_install_ready", Help: "1 while the plugin is in place."}),
	}
	err := errors.Join(telemetry.RegisterBuild(d.registry, "cni", cfg.Build), d.registry.Register(d.installs), d.registry.Register(d.readiness))
	if err != nil {
		return nil, err
	}
	metrics, err := nodeagent.NewMetrics(d.registry)
	if err != nil {
		return nil, err
	}
	if d.hostNS, err = netns.Host(); err != nil {
		return nil, err
	}
	d.rules = host.New(d.hostNS, cfg.Redirect)
	d.proxies, err = zds.Listen(cfg.ZDSSocket, zds.Config{
		Log:       telemetry.Scoped(cfg.Log, "zds"),
		Taken:     func(uid string, err error) { d.agent.Taken(uid, err) },
		Connected: func(n int) { metrics.Connected.Set(float64(n)) },
	})
	if err != nil {
		d.hostNS.Close()
		return nil, err
	}
	d.agent, err = nodeagent.New(ctx, nodeagent.Config{
		Node: cfg.Node, Redirect: cfg.Redirect, Excluded: cfg.ExcludeNamespaces, StateFile: cfg.StateFile, Proxy: d.proxies, Host: d.rules,
		Annotator: d.annotator, Log: telemetry.Scoped(cfg.Log, "agent"), Metrics: metrics,
	})
	return d, err
}

func (d *daemon) close() {
	d.annotator.Close()
	d.hostNS.Close()
}

func (d *daemon) installation() install.Options {
	return install.Options{
		Source: d.cfg.PluginSource, BinDir: d.cfg.BinDir, NetDir: d.cfg.NetDir, Socket: d.cfg.PluginSocket, ExcludeNamespaces: d.cfg.ExcludeNamespaces,
	}
}

// keepInstalled installs the plugin, and repairs the installation when another one rewrites the configuration.
func (d *daemon) keepInstalled(ctx context.Context) {
	if d.cfg.PluginSource == "" {
		d.installed.Store(true)
		return
	}
	ticker := time.NewTicker(repairEvery)
	defer ticker.Stop()
	problem := ""
	for {
		err := install.Binary(d.installation())
		changed := false
		if err == nil {
			changed, err = install.Chain(d.installation())
		}
		d.installed.Store(err == nil)
		switch {
		case err != nil:
			d.readiness.Set(0)
			if err.Error() != problem {
				d.installs.WithLabelValues("ERROR").Inc()
				d.cfg.Log.Warn("CNI plugin not installed; trying again", "error", err)
			}
			problem = err.Error()
		case changed || problem != "":
			problem = ""
			d.installs.WithLabelValues("SUCCESS").Inc()
			d.cfg.Log.Info("CNI plugin installed", "configuration", d.cfg.NetDir)
			d.readiness.Set(1)
		default:
			d.readiness.Set(1)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// serve opens the plugin's socket and the HTTP ports.
func (d *daemon) serve(ctx context.Context, g *group) error {
	if err := os.MkdirAll(filepath.Dir(d.cfg.PluginSocket), 0o755); err != nil {
		return fmt.Errorf("directory of the plugin's socket: %w", err)
	}
	if err := os.Remove(d.cfg.PluginSocket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace the plugin's socket: %w", err)
	}
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	health.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !d.ready.Load() || !d.installed.Load() {
			http.Error(w, fmt.Sprintf("not ready: objects known %t, plugin installed %t", d.ready.Load(), d.installed.Load()), http.StatusServiceUnavailable)
		}
	})
	health.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.agent.Statuses()) // the asker is gone
	})
	monitoring := http.NewServeMux()
	monitoring.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}))
	for _, s := range []struct {
		network, addr string
		handler       http.Handler
	}{
		{"unix", d.cfg.PluginSocket, d.agent.Handler()}, {"tcp", d.cfg.HealthAddr, health}, {"tcp", d.cfg.MonitoringAddr, monitoring},
	} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, s.network, s.addr)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", s.addr, err)
		}
		if unix, ok := listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false) // the next agent's socket may be there by then
			if err := os.Chmod(s.addr, 0o600); err != nil {
				listener.Close()
				return fmt.Errorf("mode of %s: %w", s.addr, err)
			}
		}
		server := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second}
		g.run(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve on %s: %w", s.addr, err)
			}
			return nil
		})
		g.run(func() error { <-ctx.Done(); return server.Close() })
	}
	return nil
}

// group runs goroutines; the first that fails ends them all.
type group struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	err error // guarded by mu: the first one
}

func (g *group) run(fn func() error) {
	g.wg.Go(func() {
		if err := fn(); err != nil {
			g.mu.Lock()
			if g.err == nil {
				g.err = err
			}
			g.mu.Unlock()
			g.cancel()
		}
	})
}

func (g *group) wait() error {
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}
