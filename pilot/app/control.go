package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/deploy"
	"github.com/isthmus-mesh/isthmus/pilot/internal/ipalloc"
	"github.com/isthmus-mesh/isthmus/pilot/internal/leader"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/internal/rootcert"
	"github.com/isthmus-mesh/isthmus/pilot/internal/status"
	"github.com/isthmus-mesh/isthmus/pilot/internal/untaint"
	"github.com/isthmus-mesh/isthmus/pilot/internal/webhook"
	gateways "github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// lockWebhook is ours: Istio's replicas all write the webhooks.
const lockWebhook = "istio-webhook-leader"

// controllers are what one replica does in the cluster. All are nil without an API server.
type controllers struct {
	elector  *leader.Elector
	led      []led
	webhook  *webhook.Server
	deploy   *deploy.Controller
	statuses *status.Kube
	maps     []*rootcert.Distributor
	bundle   *rootcert.Bundle // nil unless roots are in a ClusterTrustBundle
}

// led is something that the holder of a lock runs.
type led struct {
	lock string
	run  func(context.Context) error
}

func (p *plane) newControllers() error {
	if p.api == nil {
		return nil
	}
	cfg, c := p.cfg, &p.controllers
	c.elector = leader.New(leader.Config{
		Client: p.api, Namespace: cfg.Namespace, Identity: cfg.PodName, Revision: cfg.Revision,
		Log: telemetry.Scoped(cfg.Log, "leader"), Timing: cfg.LeaderTiming,
	})
	p.newDistributors()
	p.newBundle()
	return errors.Join(p.newWebhook(), p.newDeploy(), p.newStatus(), p.newIPAllocate(), p.newUntaint())
}

// newDistributors makes those of the ConfigMaps in all namespaces. One lock is enough for them.
func (p *plane) newDistributors() {
	c, log := &p.controllers, telemetry.Scoped(p.cfg.Log, "rootcert")
	add := func(name, key string, selected func(*corev1.Namespace) bool, content func() []byte) {
		d := rootcert.New(rootcert.Config{
			API: p.api, Name: name, Selected: selected, Log: log,
			Data: func() map[string]string {
				text := content()
				if len(text) == 0 {
					return nil
				}
				return map[string]string{key: string(text)}
			},
		})
		c.maps = append(c.maps, d)
	}
	if p.cfg.Controllers.RootCerts {
		selected := p.selected
		if p.cfg.Controllers.TrustBundle { // istioctl reads that of the control plane's own namespace
			selected = func(n *corev1.Namespace) bool { return n.Name == p.cfg.Namespace }
		}
		add(rootcert.RootsName, rootcert.RootsKey, selected, p.pki.authority.RootPEM)
	}
	if p.cfg.Controllers.CRL {
		add(rootcert.CRLName, rootcert.CRLKey, p.selected, p.pki.authority.CRL)
	}
	if len(c.maps) == 0 {
		return
	}
	c.led = append(c.led, led{leader.NamespaceController, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, d := range c.maps {
			g.Go(func() error { return d.Run(ctx) })
		}
		return g.Wait()
	}})
}

// newBundle makes what puts the roots into a ClusterTrustBundle.
func (p *plane) newBundle() {
	if c := &p.controllers; p.cfg.Controllers.TrustBundle {
		c.bundle = rootcert.NewBundle(rootcert.BundleConfig{API: p.api, Roots: p.pki.authority.RootPEM, Log: telemetry.Scoped(p.cfg.Log, "rootcert")})
		c.led = append(c.led, led{leader.ClusterTrustBundle, c.bundle.Run})
	}
}

// selected tells whether a namespace is part of the mesh.
func (p *plane) selected(n *corev1.Namespace) bool {
	chosen := p.selectors()
	for _, s := range chosen {
		if s.Matches(labels.Set(n.Labels)) {
			return true
		}
	}
	return len(chosen) == 0
}

// newWebhook makes the webhook, which every replica serves, and what has the API server trust it.
func (p *plane) newWebhook() (err error) {
	c := &p.controllers
	c.webhook, err = webhook.New(webhook.Config{
		REST: p.cfg.Kubernetes, Namespace: p.cfg.Namespace, Revision: p.cfg.Revision, CABundle: p.pki.authority.RootPEM,
		Metrics: p.metrics, Log: telemetry.Scoped(p.cfg.Log, "webhook"),
	})
	if err == nil && p.cfg.Controllers.Webhooks {
		c.led = append(c.led, led{c.elector.PerRevision(lockWebhook), c.webhook.Run})
	}
	return err
}

func (p *plane) newDeploy() (err error) {
	c := &p.controllers
	if !p.cfg.Controllers.Deploy {
		return nil
	}
	c.deploy, err = deploy.New(deploy.Config{
		REST: p.cfg.Kubernetes, Namespace: p.cfg.Namespace, Revision: p.cfg.Revision, Domain: p.cfg.Domain, Values: p.gatewayValues,
		Listeners: func(gw types.NamespacedName) []gatewayv1.Listener { return p.registry.AddedListeners(gw.String()) },
		Log:       telemetry.Scoped(p.cfg.Log, "deploy"),
	})
	if err == nil {
		c.led = append(c.led, led{c.elector.PerRevision(leader.GatewayDeployment), p.deployGateways})
	}
	return err
}

// deployGateways waits for the registry: Services would lose the ports of ListenerSets that are not known yet.
func (p *plane) deployGateways(ctx context.Context) error {
	if err := p.registry.WaitSynced(ctx); err != nil {
		return nil //nolint:nilerr // only the end of ctx ends the waiting
	}
	defer p.registry.FollowAddedListeners(func(gateways []string) {
		keys := make([]types.NamespacedName, 0, len(gateways))
		for _, key := range gateways {
			namespace, name, _ := strings.Cut(key, "/")
			keys = append(keys, types.NamespacedName{Namespace: namespace, Name: name})
		}
		p.controllers.deploy.ListenersChanged(keys...)
	})()
	return p.controllers.deploy.Run(ctx)
}

// gatewayValues are what the mesh configuration says of proxies that are deployed.
func (p *plane) gatewayValues() gateways.Values {
	mesh := p.settings.Load().Proto
	v := gateways.Values{
		Revision: p.cfg.Revision, Domain: p.cfg.Domain, TrustDomain: mesh.GetTrustDomain(), ClusterID: p.cfg.ClusterID, Network: p.cfg.Network,
		MeshID: mesh.GetDefaultConfig().GetMeshId(), Discovery: gateways.Discovery(p.cfg.Revision, p.cfg.Namespace), CertProvider: "istiod",
	}
	if p.cfg.Controllers.TrustBundle {
		v.TrustBundle = rootcert.BundleName
	}
	if proxy := mesh.GetDefaultConfig(); proxy != nil {
		if raw, err := protojson.Marshal(proxy); err == nil { // it was read from JSON
			v.ProxyConfig = json.RawMessage(raw)
		}
	}
	return v
}

func (p *plane) newStatus() (err error) {
	c := &p.controllers
	if !p.cfg.Controllers.Status {
		return nil
	}
	c.statuses, err = status.NewKube(status.KubeConfig{REST: p.cfg.Kubernetes, Log: telemetry.Scoped(p.cfg.Log, "status")})
	if err == nil {
		c.led = append(c.led, led{leader.Status, c.statuses.Run})
	}
	return err
}

func (p *plane) newIPAllocate() error {
	c := &p.controllers
	if !p.cfg.Controllers.IPAllocate {
		return nil
	}
	allocator, err := ipalloc.New(ipalloc.Config{REST: p.cfg.Kubernetes, Log: telemetry.Scoped(p.cfg.Log, "ipallocate")})
	if err == nil {
		c.led = append(c.led, led{leader.IPAutoallocate, allocator.Run})
	}
	return err
}

func (p *plane) newUntaint() error {
	c := &p.controllers
	if !p.cfg.Controllers.Untaint {
		return nil
	}
	nodes, err := untaint.New(untaint.Config{Client: p.api, Namespace: cmp.Or(p.cfg.CNINamespace, p.cfg.Namespace), Log: telemetry.Scoped(p.cfg.Log, "untaint")})
	if err == nil {
		c.led = append(c.led, led{leader.NodeUntaint, nodes.Run})
	}
	return err
}

// control runs what the holders of locks run, whenever this replica is one, until ctx ends.
func (p *plane) control(ctx context.Context, g *errgroup.Group) {
	for _, l := range p.controllers.led {
		g.Go(func() error { return p.controllers.elector.Run(ctx, l.lock, l.run) })
	}
}

// statusChanged hands statuses on.
func (p *plane) statusChanged(changed []registry.Status) {
	p.statuses.Changed(changed)
	if p.controllers.statuses != nil {
		p.controllers.statuses.Changed(changed)
	}
}

// rootsChanged says that the authority has other roots.
func (p *plane) rootsChanged() {
	for _, d := range p.controllers.maps {
		d.Refresh()
	}
	if p.controllers.bundle != nil {
		p.controllers.bundle.Refresh()
	}
	if p.controllers.webhook != nil {
		p.controllers.webhook.RootsChanged()
	}
}

// meshChanged says that the mesh configuration is another one.
func (c *controllers) meshChanged() {
	for _, d := range c.maps {
		d.Refresh()
	}
	if c.deploy != nil {
		c.deploy.ValuesChanged()
	}
}
