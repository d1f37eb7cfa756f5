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
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/tlsrec"
	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/admin"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/crl"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/dns"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/inpod"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// The tasks that readiness waits for, as the field names them.
const (
	taskState = "state manager"
	taskProxy = "proxy"
)

// crlCheck is how often the revocation lists are looked at.
const crlCheck = 2 * time.Second

// Run serves the node's pods until ctx ends, then drains them. An orderly end is no error.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	if cfg.Threads > 0 {
		runtime.GOMAXPROCS(cfg.Threads + 1) // for what is light: see netx.Turns
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	n, err := assemble(ctx, cfg, quit)
	if err != nil {
		return err
	}
	defer n.close()
	return n.run(ctx)
}

func (c Config) validate() error {
	var problems []error
	if c.Log == nil || c.Levels == nil {
		problems = append(problems, errors.New("no logger"))
	}
	if c.NodeName == "" {
		problems = append(problems, errors.New("the node's name is missing: set NODE_NAME"))
	}
	if c.PodName == "" || c.PodNamespace == "" {
		problems = append(problems, errors.New("the proxy's own pod is unknown: set POD_NAME and POD_NAMESPACE"))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("start the node proxy: %w", err)
	}
	return nil
}

// upstream adds what both services of the control plane share.
func (c Config) upstream(u Upstream) controlplane.Upstream {
	return controlplane.Upstream{
		URL: u.URL, RootCertFile: u.RootCertFile, AltHostname: u.AltHostname, Headers: u.Headers,
		TokenFile: c.TokenFile, ClusterID: c.ClusterID,
	}
}

// node is the proxy, assembled.
type node struct {
	cfg       Config
	store     *l4.Store
	discovery *client.Client
	issuer    *ca.Issuer
	certs     *certs.Manager
	pods      *inpod.Manager
	readiness *telemetry.Readiness
	registry  *prometheus.Registry
	revoked   *crl.List // nil without a file
	door      door
	sleepers  *netx.Sleepers
	servers   []*http.Server
	quit      context.CancelFunc
}

func assemble(ctx context.Context, cfg Config, quit context.CancelFunc) (*node, error) {
	n := &node{
		cfg: cfg, store: l4.NewStore(), registry: prometheus.NewRegistry(), quit: quit,
		readiness: telemetry.NewReadiness(http.StatusInternalServerError, taskState, taskProxy),
	}
	err := errors.Join(
		telemetry.RegisterBuild(n.registry, "ztunnel", cfg.Build),
		n.registry.Register(collectors.NewGoCollector()),
		n.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	)
	if err != nil {
		return nil, err
	}
	if n.discovery, err = newDiscovery(cfg, l4.NewBuilder(n.store), client.NewMetrics(n.registry)); err != nil {
		return nil, err
	}
	if n.issuer, err = ca.NewIssuer(ca.Config{Upstream: cfg.upstream(cfg.CA), TTL: cfg.SecretTTL, Impersonate: true}); err != nil {
		return nil, err
	}
	n.certs = certs.NewManager(n.issuer, certs.ManagerConfig{Log: cfg.Log})
	if err := n.assemblePods(ctx); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// transport is what is configured, or what comes closest to it on this kernel.
func (n *node) transport(ctx context.Context) hbone.Transport {
	if n.cfg.Transport != hbone.Kernel {
		return n.cfg.Transport
	}
	if err := tlsrec.KernelSeals(ctx); err != nil {
		n.cfg.Log.Warn("HBONE_TRANSPORT=ktls: this kernel does not seal the records of tunnels, the proxy does; Linux 6.14 or newer with CONFIG_TLS does", "error", err)
		return hbone.Records
	}
	n.cfg.Log.Info("the kernel seals the records of tunnels")
	return hbone.Kernel
}

// assemblePods makes what serves the pods.
func (n *node) assemblePods(ctx context.Context) error {
	traffic, err := proxy.NewMetrics(n.registry)
	if err != nil {
		return err
	}
	managed, err := inpod.NewMetrics(n.registry)
	if err != nil {
		return err
	}
	limits, err := n.cfg.limits()
	if err != nil {
		return err
	}
	if n.cfg.Threads > 0 {
		limits.Turns = netx.NewTurns(n.cfg.Threads)
	}
	shared := budget.NewNode(limits)
	if err := shared.Register(n.registry, processorTime); err != nil {
		return fmt.Errorf("register workload metrics: %w", err)
	}
	n.cfg.Log.Info("workloads share", "connections", limits.Connections, "buffer_bytes", limits.Buffers, "connections_per_workload", limits.PerWorkload)
	if n.sleepers, err = netx.NewSleepers(n.cfg.SleepAfter); err != nil {
		return err
	}
	deps := proxy.Deps{
		Budget: shared, Sleepers: n.sleepers,
		Store: n.store, Certs: n.certs, Resolver: hostResolver{net.DefaultResolver}, Metrics: traffic,
		AccessLog: telemetry.Scoped(n.cfg.Log, "access"), Log: telemetry.Scoped(n.cfg.Log, "proxy"),
		Config: proxy.Config{
			Node: n.cfg.NodeName, IPv6: n.cfg.IPv6, ResponseBaggage: n.cfg.ResponseBaggage, LogDecisions: n.cfg.LogDecisions,
			Pool:      hbone.PoolConfig{IdleTimeout: n.cfg.PoolIdleTimeout, MaxStreams: n.cfg.PoolMaxStreams, BusyConns: n.cfg.PoolBusyConns},
			Transport: n.transport(ctx),
		},
	}
	if n.cfg.CRLFile != "" {
		if n.revoked, err = crl.Open(n.cfg.CRLFile, telemetry.Scoped(n.cfg.Log, "crl")); err != nil {
			return err
		}
		deps.Revocation = n.revoked
	}
	if n.cfg.OnDemand {
		deps.Demander = demander{n.discovery}
	}
	if n.cfg.DNSProxy {
		if deps.Companion, err = n.nameServers(); err != nil {
			return err
		}
	}
	known := &identities{
		ctx: ctx, certs: n.certs, trustDomain: n.cfg.TrustDomain, patience: n.cfg.CertificatePatience, log: telemetry.Scoped(n.cfg.Log, "inpod"),
		pods: map[spiffe.ID]int{},
	}
	n.pods = inpod.NewManager(inpod.Config{
		Socket: n.cfg.ZDSSocket, Sockets: n.cfg.sockets(), DrainTimeout: n.cfg.DrainTimeout,
		Starter: starter{proxy.NewFactory(deps)}, Prepare: known.prepare, Observer: known,
		Log: telemetry.Scoped(n.cfg.Log, "inpod"), Metrics: managed,
	})
	return nil
}

func (n *node) nameServers() (proxy.Companion, error) {
	metrics, err := dns.NewMetrics(n.registry)
	if err != nil {
		return nil, err
	}
	upstreams, err := dns.ReadResolvers("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	return nameServers{config: dns.Config{
		Settings: dns.Settings{Domain: n.cfg.ClusterDomain, PreferredNamespace: n.cfg.PreferredServiceNamespace, IPv6: n.cfg.IPv6},
		Store:    n.store, Forwarder: dns.NewForwarder(upstreams), Metrics: metrics, Log: telemetry.Scoped(n.cfg.Log, "dns"),
	}}, nil
}

// answerMark is in the mark of sockets that answer, beside the packet mark, of whose bits redirection looks at the lower twelve alone. Those
// whom they answer may be bound to the pod's interface: sklookup (cni/redirect/sklookup) has answers arrive there, and what the proxy
// itself begins over loopback.
const answerMark = 0x1000

// sockets are the options of every socket in a pod.
func (c Config) sockets() netx.Options {
	options := netx.Options{Mark: c.PacketMark, RequireTransparent: c.RequireTransparent}
	if c.PacketMark != 0 {
		options.ListenMark = c.PacketMark | answerMark
	}
	if c.KeepaliveEnabled {
		options.Keepalive = netx.Keepalive{Idle: c.KeepaliveTime, Interval: c.KeepaliveInterval, Count: c.KeepaliveRetries}
	}
	return options
}

// run serves until ctx ends or something essential fails, then drains.
func (n *node) run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	working, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx by the drain
	defer stop()
	if err := n.serve(working, &tasks); err != nil {
		return err
	}
	defer n.stopServing()
	tasks.Go(func() { _ = n.discovery.Run(working) }) // ends with working only
	tasks.Go(func() { n.follow(ctx, n.discovery.Synced(), taskState) })
	if n.revoked != nil {
		tasks.Go(func() { n.revoked.Follow(working, crlCheck) })
	}
	failed := make(chan error, 1)
	talking, hangUp := context.WithCancel(ctx)
	defer hangUp()
	var conversation sync.WaitGroup
	if n.cfg.Enabled {
		tasks.Go(func() {
			if n.succeed(ctx) {
				n.readiness.Done(taskProxy)
			}
		})
		conversation.Go(func() {
			// Without the policies a proxy would allow what they refuse: no pod is served before they are known.
			select {
			case <-n.discovery.Synced():
			case <-talking.Done():
				return
			}
			if err := n.pods.Run(talking); err != nil {
				failed <- err
			}
		})
	} else {
		n.readiness.Done(taskProxy)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	hangUp()
	conversation.Wait()
	n.drain(context.WithoutCancel(ctx))
	return err
}

func (n *node) follow(ctx context.Context, done <-chan struct{}, task string) {
	select {
	case <-done:
		n.readiness.Done(task)
	case <-ctx.Done():
	}
}

// drain lets open connections end. The control plane keeps informing meanwhile, so that policies stay in force.
func (n *node) drain(ctx context.Context) {
	n.readiness.Block("shutting down")
	n.cfg.Log.Info("draining", "timeout", n.cfg.DrainTimeout)
	ctx, cancel := context.WithTimeout(ctx, n.cfg.DrainTimeout)
	defer cancel()
	if n.cfg.Handover {
		n.handOver(ctx)
	}
	n.pods.Drain(ctx)
	n.cfg.Log.Info("drained")
}

func (n *node) close() {
	n.sleepers.Close()
	n.certs.Close()
	n.issuer.Close()
}

// serve opens the proxy's own ports.
func (n *node) serve(ctx context.Context, tasks *sync.WaitGroup) error {
	door := &admin.Server{
		State: n.store.Load, Certificates: n.certs.Snapshot, Pods: n.pods.Pods, Build: n.cfg.Build, Config: n.cfg,
		Levels: n.cfg.Levels, Quit: n.quit, Log: n.cfg.Log,
	}
	var addresses Addresses
	for _, s := range []struct {
		addr    string
		handler http.Handler
		bound   *net.Addr
	}{
		{n.cfg.AdminAddr, door.Handler(), &addresses.Admin},
		{n.cfg.MetricsAddr, admin.MetricsHandler(n.registry), &addresses.Metrics},
		{n.cfg.ReadinessAddr, admin.ReadinessHandler(n.readiness), &addresses.Readiness},
	} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.addr)
		if err != nil {
			n.stopServing()
			return fmt.Errorf("listen on %s: %w", s.addr, err)
		}
		*s.bound = listener.Addr()
		server := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(n.cfg.Log.Handler(), slog.LevelDebug)}
		n.servers = append(n.servers, server)
		tasks.Go(func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				n.cfg.Log.Error("server ended", "address", s.addr, "error", err)
				n.quit()
			}
		})
	}
	n.cfg.Log.Info("node proxy serves", "admin", addresses.Admin, "metrics", addresses.Metrics, "readiness", addresses.Readiness)
	if n.cfg.Started != nil {
		n.cfg.Started(addresses)
	}
	return nil
}

func (n *node) stopServing() {
	for _, s := range n.servers {
		s.Close()
	}
}
