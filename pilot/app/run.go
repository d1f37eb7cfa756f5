package app

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pilot/internal/jwks"
	"github.com/isthmus-mesh/isthmus/pilot/internal/meshconfig"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/internal/status"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// stopGrace is how long open requests may take once the context has ended.
const stopGrace = 2 * time.Second

// Run serves until ctx ends, which is no error, or something essential fails.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := assemble(ctx, cfg)
	if err != nil {
		return err
	}
	g := &group{cancel: cancel}
	defer func() { cancel(); _ = g.wait() }() // its error has been returned by then
	g.run(func() error { return p.source.Run(ctx, p.registry.Sink(p.registryMetrics)) })
	g.run(func() error { return p.pki.run(ctx) })
	if cfg.MeshConfigFile != "" {
		g.run(func() error {
			return meshconfig.Follow(ctx, cfg.MeshConfigFile, cfg.Log, p.applyMesh)
		})
	}
	// Clients must not take an incomplete state for the whole: nothing is served before it is known.
	if err := p.registry.WaitSynced(ctx); err != nil {
		cancel()
		return errors.Join(g.wait(), ignoreCanceled(ctx, err))
	}
	defer p.registry.PublishTo(p.xds)()
	defer p.followKeys()()
	g.run(func() error { return p.statuses.Run(ctx) })
	defer p.registry.FollowStatuses(p.statuses.Changed)()
	if err := p.serve(ctx, g); err != nil {
		cancel()
		return errors.Join(err, g.wait())
	}
	<-ctx.Done()
	return g.wait()
}

// followKeys fetches the key sets of token issuers as long as something asks for them.
func (p *plane) followKeys() (stop func()) {
	fetcher := jwks.New(jwks.Config{
		Client: jwks.NewClient(p.cfg.BlockedKeySources),
		Publish: func(source, document string) {
			p.registry.SetKeySets(registry.KeySet{Source: source, Document: document})
		},
		Log: telemetry.Scoped(p.cfg.Log, "jwks"),
	})
	unfollow := p.registry.FollowKeySources(fetcher.Want)
	return func() {
		unfollow()
		fetcher.Close()
	}
}

func ignoreCanceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// plane is the control plane, assembled.
type plane struct {
	cfg             Config
	settings        atomic.Pointer[meshconfig.Settings]
	registry        *registry.Registry
	registryMetrics *registry.Metrics
	source          *kube.FileSource
	xds             *server.Server
	metrics         *prometheus.Registry
	ready           atomic.Bool
	security        *guard
	pki             *pki
	statuses        *status.Writer
}

func assemble(ctx context.Context, cfg Config) (*plane, error) {
	settings, err := meshconfig.Load(cfg.MeshConfigFile)
	if err != nil {
		return nil, err
	}
	p := &plane{cfg: cfg, metrics: prometheus.NewRegistry()}
	p.settings.Store(&settings)
	p.registry = registry.New(p.mesh(settings))
	if p.registryMetrics, err = registry.NewMetrics(p.metrics, p.registry); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := p.registerProcessMetrics(time.Now()); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	p.source = kube.NewFileSource(cfg.ConfigDir, telemetry.Scoped(cfg.Log, "source"), p.reportObjects)
	if p.pki, err = p.newPKI(ctx); err != nil {
		return nil, err
	}
	p.statuses = status.New(cfg.StatusDir, telemetry.Scoped(cfg.Log, "status"), time.Now)
	p.security = newSecurity(cfg, p.pki.callers)
	debugServer := p.debugServer()
	controlPlane, err := debugServer.ControlPlane()
	if err != nil {
		return nil, err
	}
	p.xds = server.New(server.Config{
		ControlPlane: controlPlane,
		Log:          telemetry.Scoped(cfg.Log, "ads"),
		Authenticate: p.security.authenticate,
		Implied:      registry.Implied,
		Scopes:       p.registry.Scopes(),
		SotW:         debugServer.SotW(),
		Version:      cfg.Build.Version,
		Metrics:      server.NewMetrics(p.metrics),
	})
	debugServer.Clients = p.xds.Clients
	p.security.debug = debugServer
	return p, nil
}
