// Package controller keeps a cluster in line with an IstioOperator object: what `istioctl install -f` does once, again and again.
//
// controller.go watches and decides when, reconcile.go does it, status.go says how it went.
package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/operator/install"
	"github.com/isthmus-mesh/isthmus/operator/render"
)

// finalizer keeps an object until what it installed is removed.
const finalizer = "istio-finalizer.install.istio.io"

// Config of a controller.
type Config struct {
	REST *rest.Config
	// Namespace is where the object is; one is honoured, the oldest.
	Namespace string
	// Render has the images and the version of this program.
	Render render.Options
	// Resync is how often the cluster is brought in line though the object is unchanged.
	Resync time.Duration
	// Timeout is how long a component may take to become ready; as install.Options.
	Timeout time.Duration
	Log     *slog.Logger
}

// resource is that of IstioOperator objects.
func resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "install.istio.io", Version: "v1alpha1", Resource: "istiooperators"}
}

// Controller is a running controller.
type Controller struct {
	cfg     Config
	client  dynamic.ResourceInterface
	cluster *install.Cluster
	// done is what was reconciled last, by UID: its generation and when. Owned by Run.
	done map[types.UID]progress
}

type progress struct {
	generation int64
	at         time.Time
	failed     bool
}

// New returns a controller.
func New(cfg Config) (*Controller, error) {
	if cfg.Log == nil {
		return nil, errors.New("operator: no logger")
	}
	client, err := dynamic.NewForConfig(cfg.REST)
	if err != nil {
		return nil, err
	}
	cluster, err := install.Connect(cfg.REST)
	if err != nil {
		return nil, err
	}
	if cfg.Resync == 0 {
		cfg.Resync = 3 * time.Minute
	}
	return &Controller{cfg: cfg, client: client.Resource(resource()).Namespace(cfg.Namespace), cluster: cluster, done: map[types.UID]progress{}}, nil
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	client, err := dynamic.NewForConfig(c.cfg.REST)
	if err != nil {
		return err
	}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, c.cfg.Namespace, nil)
	informer := factory.ForResource(resource()).Informer()
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { tell() }, UpdateFunc: func(any, any) { tell() }, DeleteFunc: func(any) { tell() },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	again := time.NewTicker(retryEvery)
	defer again.Stop()
	for {
		c.look(ctx, informer.GetStore().List())
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again.C:
		}
	}
}

// retryEvery is how soon after a failure it is tried again.
const retryEvery = 15 * time.Second

// look reconciles what is due: the oldest object, and those that are to be deleted.
func (c *Controller) look(ctx context.Context, items []any) {
	var chosen *unstructured.Unstructured
	var others []*unstructured.Unstructured
	for _, item := range items {
		u, ok := item.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		switch {
		case u.GetDeletionTimestamp() != nil:
			if err := c.remove(ctx, u); err != nil {
				c.cfg.Log.Error("remove an installation", "object", u.GetName(), "error", err)
			}
		case chosen == nil:
			chosen = u
		case older(u, chosen):
			chosen, others = u, append(others, chosen)
		default:
			others = append(others, u)
		}
	}
	for _, u := range others {
		if err := c.write(ctx, u, status{State: stateError, Message: "only one object is honoured, the oldest: " + chosen.GetName()}); err != nil {
			c.cfg.Log.Error("write a status", "object", u.GetName(), "error", err)
		}
	}
	if chosen == nil || !c.due(chosen) {
		return
	}
	err := c.reconcile(ctx, chosen)
	if err != nil && ctx.Err() == nil {
		c.cfg.Log.Error("reconcile an installation", "object", chosen.GetName(), "error", err)
	}
	c.done[chosen.GetUID()] = progress{generation: chosen.GetGeneration(), at: time.Now(), failed: err != nil}
}

func older(a, b *unstructured.Unstructured) bool {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if x.Equal(&y) {
		return a.GetName() < b.GetName()
	}
	return x.Before(&y)
}

// due tells whether an object changed, failed a while ago, or was not looked at for long.
func (c *Controller) due(u *unstructured.Unstructured) bool {
	last, seen := c.done[u.GetUID()]
	since := time.Since(last.at)
	return !seen || last.generation != u.GetGeneration() || last.failed && since >= retryEvery || since >= c.cfg.Resync
}

// options of writes.
func options() metav1.UpdateOptions { return metav1.UpdateOptions{FieldManager: "istio-operator"} }
