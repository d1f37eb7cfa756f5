// Package deploy keeps what Gateways are deployed as in line with them: each one of a class of ours has a ServiceAccount, a
// Deployment and a Service in the cluster, which go with it. It also writes at which addresses a Gateway is reached.
//
// What the objects are is decided by pilot/translate/deploy. Every change, of the Gateway, of what customises it, or of one of its
// objects by somebody else, leads to the same reconciliation of the whole Gateway.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

// Config of a controller.
type Config struct {
	REST *rest.Config
	// Namespace of the control plane, where the ConfigMap with the installation's values is.
	Namespace string
	// Revision of this control plane: Gateways with the label istio.io/rev of another one are not its business.
	Revision string
	// Domain is the suffix of Kubernetes Services' names.
	Domain string
	// Values are what the mesh configuration says (trust domain, network, default proxy configuration …). What the ConfigMap
	// istio-sidecar-injector[-revision] says is put over it.
	Values func() deploy.Values
	// Listeners are those that the ListenerSets of a Gateway add to it; nil for none.
	Listeners func(types.NamespacedName) []gatewayv1.Listener
	Log       *slog.Logger
}

// workers reconcile at the same time, each another Gateway.
const workers = 4

// Controller deploys Gateways.
type Controller struct {
	cfg      Config
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface

	revalue chan struct{} // holds one token: Config.Values says something else
	relist  relist
}

// New returns a controller that has not done anything yet.
func New(cfg Config) (*Controller, error) {
	if cfg.REST == nil || cfg.Log == nil || cfg.Values == nil {
		return nil, errors.New("deploy gateways: no client configuration, values or logger")
	}
	if cfg.Domain == "" {
		cfg.Domain = "cluster.local"
	}
	if cfg.Listeners == nil {
		cfg.Listeners = func(types.NamespacedName) []gatewayv1.Listener { return nil }
	}
	c := &Controller{cfg: cfg, revalue: make(chan struct{}, 1), relist: newRelist()}
	var err error
	if c.client, err = kubernetes.NewForConfig(cfg.REST); err != nil {
		return nil, fmt.Errorf("deploy gateways: %w", err)
	}
	plain := rest.CopyConfig(cfg.REST) // the dynamic client speaks JSON only
	plain.ContentType, plain.AcceptContentTypes = "", ""
	if c.dynamic, err = dynamic.NewForConfig(plain); err != nil {
		return nil, fmt.Errorf("deploy gateways: %w", err)
	}
	if c.metadata, err = metadata.NewForConfig(cfg.REST); err != nil {
		return nil, fmt.Errorf("deploy gateways: %w", err)
	}
	return c, nil
}

// ValuesChanged has all Gateways rendered anew, since Config.Values says something else.
func (c *Controller) ValuesChanged() {
	select {
	case c.revalue <- struct{}{}:
	default:
	}
}

// ListenersChanged has Gateways rendered anew, since Config.Listeners says something else of them.
func (c *Controller) ListenersChanged(gateways ...types.NamespacedName) { c.relist.add(gateways) }

// Run works until ctx ends: while this instance is the leader. It may be called again afterwards. Where the Gateway API is not
// installed it waits until it is.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.waitForAPI(ctx); err != nil {
		return nil //nolint:nilerr // only the end of ctx ends the waiting
	}
	r := &run{
		Controller: c,
		queue:      workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, time.Minute)),
		applied:    map[string]string{},
	}
	if err := r.watch(ctx); err != nil {
		return err
	}
	defer r.stop(cancel)
	if !r.synced(ctx) {
		return nil
	}
	r.queue.Add(types.NamespacedName{}) // the GatewayClasses
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { r.work(ctx) })
	}
	all.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.revalue:
				r.enqueueAll()
			case <-c.relist.ready:
				for _, key := range c.relist.take() {
					r.queue.Add(key)
				}
			}
		}
	})
	r.cfg.Log.Info("deploying gateways")
	<-ctx.Done()
	r.queue.ShutDown()
	all.Wait()
	return nil
}

// work takes Gateways from the queue until it is shut down.
func (r *run) work(ctx context.Context) {
	for {
		key, stop := r.queue.Get()
		if stop {
			return
		}
		again, err := r.reconcile(ctx, key)
		switch {
		case err != nil && ctx.Err() == nil:
			r.cfg.Log.Warn("deploy a gateway; it is tried again", "gateway", key.String(), "error", err)
			r.queue.AddRateLimited(key)
		case again > 0:
			r.queue.Forget(key)
			r.queue.AddAfter(key, again)
		default:
			r.queue.Forget(key)
		}
		r.queue.Done(key)
	}
}
