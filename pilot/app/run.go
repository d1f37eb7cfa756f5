package app

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/pilot/internal/credentials"
	"github.com/isthmus-mesh/isthmus/pilot/internal/jwks"
	"github.com/isthmus-mesh/isthmus/pilot/internal/meshconfig"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/internal/status"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
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
	g, ctx := errgroup.WithContext(ctx)
	p, err := assemble(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { cancel(); _ = g.Wait() }() // its error has been returned by then
	if err := p.serveState(ctx, g); err != nil {
		cancel()
		return errors.Join(err, g.Wait())
	}
	g.Go(func() error { return p.source.Run(ctx, p.registry.Sink(p.registryMetrics)) })
	g.Go(func() error { return p.pki.run(ctx) })
	g.Go(func() error { return p.meshSource.Follow(ctx, p.applyMesh, p.problems.setMesh) })
	p.control(ctx, g)
	// Clients must not take an incomplete state for the whole: nothing is served before it is known.
	if err := p.registry.WaitSynced(ctx); err != nil {
		cancel()
		return errors.Join(g.Wait(), ignoreCanceled(ctx, err))
	}
	defer p.registry.PublishTo(p.xds)()
	defer p.followKeys()()
	if p.credentials != nil {
		g.Go(func() error { return p.credentials.Run(ctx) })
		defer p.registry.FollowCredentials(p.credentials.Want)()
	}
	g.Go(func() error { return p.statuses.Run(ctx) })
	defer p.registry.FollowStatuses(p.statusChanged)()
	if err := p.serve(ctx, g); err != nil {
		cancel()
		return errors.Join(err, g.Wait())
	}
	<-ctx.Done()
	return g.Wait()
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
	api             kubernetes.Interface // nil without an API server
	meshSource      meshconfig.Source
	settings        atomic.Pointer[meshconfig.Settings]
	problems        *problems
	registry        *registry.Registry
	registryMetrics *registry.Metrics
	source          kube.Source
	refresh         func() // has the source read the discovery selectors again
	xds             *server.Server
	metrics         *prometheus.Registry
	ready           atomic.Bool
	security        *guard
	pki             *pki
	statuses        *status.Writer
	controllers     controllers
	credentials     *credentials.Controller // nil without an API server
	addresses       Addresses
}

func assemble(ctx context.Context, cfg Config) (*plane, error) {
	p := &plane{cfg: cfg, metrics: prometheus.NewRegistry(), refresh: func() {}}
	p.problems = newProblems(telemetry.Scoped(cfg.Log, "config"))
	if err := p.loadMesh(ctx); err != nil {
		return nil, err
	}
	p.registry = registry.New(p.mesh(*p.settings.Load()), p.registryOptions()...)
	if p.api != nil {
		p.credentials = credentials.New(credentials.Config{API: p.api, Target: p.registry, Log: telemetry.Scoped(cfg.Log, "credentials")})
	}
	var err error
	if p.registryMetrics, err = registry.NewMetrics(p.metrics, p.registry); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := p.registerProcessMetrics(time.Now()); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := p.newSource(); err != nil {
		return nil, err
	}
	if p.pki, err = p.newPKI(ctx); err != nil {
		return nil, err
	}
	p.statuses = status.New(cfg.StatusDir, telemetry.Scoped(cfg.Log, "status"), time.Now)
	if err := p.newControllers(); err != nil {
		return nil, err
	}
	return p, p.newXDS()
}

// registryOptions leave addresses to the controller where there is an API server: several registries would give different ones. Secrets
// are then read as gateways name them.
func (p *plane) registryOptions() []registry.Option {
	if p.api == nil {
		return nil
	}
	return []registry.Option{registry.WithoutAllocation(), registry.WithLookups()}
}

// loadMesh reads the mesh configuration for the first time.
func (p *plane) loadMesh(ctx context.Context) error {
	p.meshSource = meshconfig.Source{File: p.cfg.MeshConfigFile, Namespace: p.cfg.Namespace, Log: telemetry.Scoped(p.cfg.Log, "config")}
	if p.cfg.Kubernetes != nil {
		api, err := kubernetes.NewForConfig(p.cfg.Kubernetes)
		if err != nil {
			return fmt.Errorf("connect to the API server: %w", err)
		}
		p.api, p.meshSource.API = api, api
		p.meshSource.Name, p.meshSource.Shared = meshconfig.ConfigMapName(p.cfg.Revision), p.cfg.SharedMeshConfig
	}
	var settings meshconfig.Settings
	err := p.reach(ctx, "read the mesh configuration", func() (err error) {
		settings, err = p.meshSource.Load(ctx)
		return err
	})
	p.settings.Store(&settings)
	return err
}

// newSource makes what delivers objects.
func (p *plane) newSource() error {
	log := telemetry.Scoped(p.cfg.Log, "source")
	if p.cfg.Kubernetes == nil {
		p.source = kube.NewFileSource(p.cfg.ConfigDir, log, p.problems.setObjects)
		return nil
	}
	source, err := cluster.New(cluster.Config{
		REST: p.cfg.Kubernetes, Kinds: cluster.MeshKinds(), Selectors: p.selectors, Reduce: ambient.Reduce, Log: log, OnError: p.problems.setObjects,
	})
	if err != nil {
		return err
	}
	p.source, p.refresh = source, source.Refresh
	return nil
}

// selectors choose the namespaces that are part of the mesh. The mesh's own are, whatever their labels.
func (p *plane) selectors() []labels.Selector {
	settings := p.settings.Load()
	chosen, err := settings.Selectors()
	if err != nil || len(chosen) == 0 {
		return nil // a bad one has been refused
	}
	for _, name := range []string{p.cfg.Namespace, settings.Proto.GetRootNamespace()} {
		chosen = append(chosen, labels.SelectorFromSet(labels.Set{corev1.LabelMetadataName: name}))
	}
	return chosen
}

func (p *plane) newXDS() error {
	p.security = newSecurity(p.cfg, p.pki.callers)
	debugServer := p.debugServer()
	controlPlane, err := debugServer.ControlPlane()
	if err != nil {
		return err
	}
	p.xds = server.New(server.Config{
		ControlPlane: controlPlane,
		Log:          telemetry.Scoped(p.cfg.Log, "ads"),
		Authenticate: p.security.authenticate,
		Implied:      registry.Implied,
		Scopes:       p.registry.Scopes(),
		SotW:         debugServer.SotW(),
		Version:      p.cfg.Build.Version,
		Metrics:      server.NewMetrics(p.metrics),
	})
	debugServer.Clients, debugServer.Configurations = p.xds.Clients, p.xds.Configurations
	p.security.debug = debugServer
	return nil
}
