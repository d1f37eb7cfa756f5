package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/isthmus-mesh/isthmus/pkg/ca"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/controlplane"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
)

// Run serves until ctx ends, then drains. An orderly end is no error.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil || cfg.Levels == nil {
		return errors.New("start the proxy: no logger")
	}
	for _, warning := range cfg.Warnings {
		cfg.Log.Warn(warning)
	}
	if cfg.Threads > 0 {
		runtime.GOMAXPROCS(cfg.Threads)
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	common, err := newCommon(cfg, quit)
	if err != nil {
		return fmt.Errorf("start the proxy: %w", err)
	}
	defer common.close()
	if cfg.Envoy != nil {
		return runEnvoy(ctx, common)
	}
	return runEngine(ctx, common)
}

// common is what both engines need: an identity, the node, metrics of the process, ports.
type common struct {
	cfg      Config
	identity spiffe.ID
	node     xds.Node
	issuer   *ca.Issuer
	certs    *certs.Manager
	registry *prometheus.Registry // of the process
	quit     context.CancelFunc
	started  time.Time

	tasks   sync.WaitGroup
	servers []*http.Server
}

func newCommon(cfg Config, quit context.CancelFunc) (*common, error) {
	c := &common{cfg: cfg, registry: prometheus.NewRegistry(), quit: quit, started: time.Now()}
	id := spiffe.ID{TrustDomain: cfg.TrustDomain, Namespace: cfg.PodNamespace, ServiceAccount: cfg.ServiceAccount}
	var err error
	if c.identity, err = spiffe.Parse(id.String()); err != nil {
		return nil, fmt.Errorf("identity by TRUST_DOMAIN, POD_NAMESPACE and SERVICE_ACCOUNT: %w", err)
	}
	err = errors.Join(
		telemetry.RegisterBuild(c.registry, "proxy", cfg.Build),
		c.registry.Register(collectors.NewGoCollector()),
		c.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	)
	if err != nil {
		return nil, err
	}
	if c.node, err = cfg.node(); err != nil {
		return nil, err
	}
	c.issuer, err = ca.NewIssuer(ca.Config{Upstream: cfg.upstream(cfg.CA), TTL: cfg.SecretTTL})
	if err != nil {
		return nil, err
	}
	c.certs = certs.NewManager(c.issuer, certs.ManagerConfig{Log: telemetry.Scoped(cfg.Log, "ca")})
	return c, nil
}

func (c *common) close() {
	for _, s := range c.servers {
		s.Close()
	}
	c.tasks.Wait()
	c.certs.Close()
	c.issuer.Close()
}

// Get returns the proxy's certificate in force; it waits for the first one.
func (c *common) Get(ctx context.Context) (*certs.Workload, error) {
	return c.certs.Get(ctx, c.identity)
}

// upstream adds what both services of the control plane share.
func (c Config) upstream(u Upstream) controlplane.Upstream {
	return controlplane.Upstream{URL: u.URL, RootCertFile: u.RootCertFile, Headers: u.Headers, TokenFile: c.TokenFile, ClusterID: c.ClusterID}
}

// port is a server of the proxy's own.
type port struct {
	address string
	handler http.Handler
	bound   *net.Addr
}

// serve opens the ports. The servers end in close.
func (c *common) serve(ctx context.Context, ports ...port) error {
	for _, p := range ports {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", p.address, err)
		}
		if p.bound != nil {
			*p.bound = listener.Addr()
		}
		server := &http.Server{Handler: p.handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(c.cfg.Log.Handler(), slog.LevelDebug)}
		c.servers = append(c.servers, server)
		c.tasks.Go(func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				c.cfg.Log.Error("server ended", "address", p.address, "error", err)
				c.quit()
			}
		})
	}
	return nil
}
