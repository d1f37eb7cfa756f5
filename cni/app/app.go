// Package app runs the node agent: installation, objects, enrolment, and the sockets of the plugin and the proxy.
package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/cni/internal/discover"
	"github.com/isthmus-mesh/isthmus/cni/internal/install"
	"github.com/isthmus-mesh/isthmus/cni/internal/kubeapi"
	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/nodeagent"
	"github.com/isthmus-mesh/isthmus/cni/internal/probe"
	"github.com/isthmus-mesh/isthmus/cni/internal/repair"
	"github.com/isthmus-mesh/isthmus/cni/internal/zds"
	"github.com/isthmus-mesh/isthmus/cni/redirect/sklookup"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// daemon is the agent, assembled.
type daemon struct {
	cfg       Config
	agent     *nodeagent.Agent
	proxies   *zds.Server
	api       *kubeapi.Client
	rest      *rest.Config // nil where manifests are the source
	repair    *repair.Controller
	hostNS    *os.File
	rules     nodeRules
	early     *sklookup.Backend // nil where there is none
	level     string            // of the plugin's log
	registry  *prometheus.Registry
	installed atomic.Bool
	ready     atomic.Bool
	installs  *prometheus.CounterVec
	readiness prometheus.Gauge
}

// Run serves until ctx ends. Pods stay enrolled then, and the plugin stays on the node, unless the agent is being uninstalled.
func Run(ctx context.Context, cfg Config) error {
	selection, err := cfg.validate()
	if err != nil {
		return err
	}
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	d, err := assemble(ctx, cfg, selection)
	if err != nil {
		return err
	}
	defer d.close()
	defer func() { cancel(); _ = g.Wait() }() // its error has been returned by then
	if err := d.serve(ctx, g); err != nil {
		return err
	}
	source, err := d.source()
	if err != nil {
		return err
	}
	g.Go(func() error { return source.Run(ctx, d.sink()) })
	g.Go(func() error { d.keepInstalled(ctx); return nil })
	if d.repair != nil {
		g.Go(func() error { d.repair.Run(ctx); return nil })
	}
	g.Go(func() error { return d.enrol(ctx, g) })
	asked := d.mayAsk(ctx)
	<-ctx.Done()
	err = g.Wait()
	if outer.Err() != nil && d.leaving(context.WithoutCancel(outer), asked) {
		err = errors.Join(err, d.uninstall(context.WithoutCancel(outer)))
	}
	return err
}

// enrol brings the pods of the node to where they should be, once the objects are known.
func (d *daemon) enrol(ctx context.Context, g *errgroup.Group) error {
	if d.agent.WaitSynced(ctx) != nil {
		return nil
	}
	if err := d.rules.Install(d.agent.EnrolledAddresses()); err != nil {
		return err
	}
	d.agent.Restore()
	g.Go(func() error { return d.proxies.Serve(ctx) })
	d.ready.Store(true)
	d.agent.Run(ctx)
	return nil
}

func assemble(ctx context.Context, cfg Config, selection nodeagent.Selection) (*daemon, error) {
	d := &daemon{
		cfg: cfg, level: cfg.pluginLevel(ctx), registry: prometheus.NewRegistry(),
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
	if err := d.connect(); err != nil {
		return nil, err
	}
	if d.hostNS, err = cfg.openHost(); err != nil {
		return nil, err
	}
	if err := d.assembleAgent(ctx, metrics, selection); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// connect makes the client of the API.
func (d *daemon) connect() error {
	if !d.cfg.onKubernetes() {
		d.api = kubeapi.OnSocket(d.cfg.APISocket)
		return nil
	}
	var err error
	if d.rest, err = cluster.RESTConfig(d.cfg.Kubeconfig); err != nil {
		return err
	}
	d.api, err = kubeapi.New(d.rest)
	return err
}

func (d *daemon) assembleAgent(ctx context.Context, metrics *nodeagent.Metrics, selection nodeagent.Selection) error {
	backend, rules, err := d.choose(metrics) //nolint:contextcheck // runs of binaries have a bound of their own
	if err != nil {
		return err
	}
	d.rules = rules
	hostID, err := netns.Identify(d.hostNS)
	if err != nil {
		return err
	}
	d.proxies, err = zds.Listen(d.cfg.ZDSSocket, zds.Config{
		Log:       telemetry.Scoped(d.cfg.Log, "zds"),
		Taken:     func(uid string, err error) { d.agent.Taken(uid, err) },
		Connected: func(n int) { metrics.Connected.Set(float64(n)) },
	})
	if err != nil {
		return err
	}
	config := nodeagent.Config{
		Node: d.cfg.Node, Disabled: d.cfg.AmbientDisabled, Selection: selection, Excluded: d.cfg.ExcludeNamespaces, RootNamespace: d.cfg.RootNamespace,
		Redirect: d.cfg.Redirect, Backend: backend, KeepRules: d.cfg.KeepRules, StateFile: d.cfg.StateFile, Proc: d.cfg.HostProc, HostNetns: hostID,
		Proxy: d.proxies, Host: d.rules, Annotator: d.api, Probe: probe.Tunnel, Log: telemetry.Scoped(d.cfg.Log, "agent"), Metrics: metrics,
	}
	if d.cfg.HostProc != "" {
		config.Finder = discover.Finder{Proc: d.cfg.HostProc, Host: hostID}
	}
	if d.agent, err = nodeagent.New(ctx, config); err != nil {
		return err
	}
	if err := d.agent.RegisterGauges(d.registry); err != nil {
		return err
	}
	if !d.cfg.Repair.Enabled {
		return nil
	}
	d.repair, err = repair.New(d.cfg.Repair, d.cfg.Node, d.api, d.mend, d.registry, telemetry.Scoped(d.cfg.Log, "repair"))
	return err
}

// mend is the repair in place. The agent enrols running pods of ambient mode by itself; it has no other network to set up.
func (d *daemon) mend(_ context.Context, pod *corev1.Pod) error {
	if d.agent.Enrolled(string(pod.UID)) {
		return nil
	}
	return errors.New("only pods in ambient mode can be mended in place: set --repair-delete-pods or --repair-label-pods")
}

func (d *daemon) close() {
	d.api.Close()
	d.hostNS.Close()
	if d.early != nil {
		d.early.Close()
	}
}

// source is where the objects come from.
func (d *daemon) source() (kube.Source, error) {
	log := telemetry.Scoped(d.cfg.Log, "source")
	if !d.cfg.onKubernetes() {
		return kube.NewFileSource(d.cfg.ConfigDir, log, nil), nil
	}
	source, err := cluster.New(cluster.Config{
		REST: d.rest, Node: d.cfg.Node, Log: log,
		Kinds: []schema.GroupVersionKind{kube.NamespaceGVK(), kube.PodGVK(), kube.PeerAuthenticationGVK()},
	})
	if err != nil {
		return nil, err
	}
	return source, nil
}

func (d *daemon) sink() kube.Sink {
	if d.repair == nil {
		return d.agent
	}
	return both{d.agent, d.repair}
}

// mayAsk finds out, while all is well, whether the API tells of the agent's DaemonSet. It returns the name, "" if it does not.
func (d *daemon) mayAsk(ctx context.Context) string {
	if !d.cfg.onKubernetes() || d.agent.WaitSynced(ctx) != nil {
		return ""
	}
	pod := d.agent.Pod(d.cfg.PodNamespace, d.cfg.PodName)
	if pod == nil {
		return ""
	}
	for _, owner := range pod.OwnerReferences {
		if owner.Kind != "DaemonSet" {
			continue
		}
		if _, err := d.api.DaemonSetGone(ctx, d.cfg.PodNamespace, owner.Name); err != nil {
			d.cfg.Log.WarnContext(ctx, "an uninstallation will not be noticed, and leave the plugin on the node", "error", err)
			return ""
		}
		return owner.Name
	}
	return ""
}

// leaving tells whether the agent ends for good: its DaemonSet has been deleted. An upgrade or a restart must leave the plugin
// in place, or pods would start outside of the mesh meanwhile. When in doubt, it stays.
func (d *daemon) leaving(ctx context.Context, daemonSet string) bool {
	if d.cfg.CleanUp {
		return true
	}
	if daemonSet == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	gone, err := d.api.DaemonSetGone(ctx, d.cfg.PodNamespace, daemonSet)
	switch code := kubeapi.CodeOf(err); {
	case code == 401 || code == 403:
		return true // what the account could ask before has been taken away: the DaemonSet goes with it
	case err != nil:
		d.cfg.Log.WarnContext(ctx, "the plugin stays on the node", "reason", err)
		return false
	}
	return gone
}

// leavePatience bounds each step at the end.
const leavePatience = 10 * time.Second

// uninstall takes everything off the node: the plugin first, for without an agent it lets no pod start.
func (d *daemon) uninstall(ctx context.Context) error {
	d.cfg.Log.InfoContext(ctx, "uninstalling: the plugin, the redirection of pods and the node's rules go")
	err := error(nil)
	if d.cfg.Install.Source != "" {
		err = install.Uninstall(d.installation())
	}
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	if leaveErr := d.agent.Leave(ctx); leaveErr != nil {
		d.cfg.Log.WarnContext(ctx, "some pods were not told", "error", leaveErr)
	}
	if purgeErr := d.rules.Purge(); purgeErr != nil {
		err = errors.Join(err, purgeErr)
	}
	if d.early != nil {
		err = errors.Join(err, d.early.Uninstall())
	}
	for _, file := range []string{d.cfg.StateFile, d.cfg.PluginSocket, d.cfg.logSocket(), d.cfg.ZDSSocket, d.cfg.xtablesLock()} {
		if rmErr := os.Remove(file); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove the agent's files: %w", rmErr))
		}
	}
	return err
}
