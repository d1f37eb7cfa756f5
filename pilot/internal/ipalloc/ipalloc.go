// Package ipalloc gives addresses to the hosts of ServiceEntries that have none, in their status: so that every replica and every
// proxy knows the same ones.
//
// An address once given stays, whatever happens to this process. Where two have the same one, because they were written by
// different leaders or restored from a backup, the older ServiceEntry keeps it.
package ipalloc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	apinetworking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	// fieldManager owns the addresses.
	fieldManager = "istio-ip-autoallocate"
	// apiInterval is how often it is looked whether ServiceEntries exist as a kind.
	apiInterval = 2 * time.Second
)

// Config of an allocator.
type Config struct {
	REST *rest.Config
	Log  *slog.Logger
}

// Controller writes addresses into the status of ServiceEntries.
type Controller struct {
	log       *slog.Logger
	dynamic   dynamic.Interface
	discovery discovery.DiscoveryInterface
}

// New returns a controller that has not done anything yet.
func New(cfg Config) (*Controller, error) {
	if cfg.REST == nil || cfg.Log == nil {
		return nil, errors.New("allocate addresses: no client configuration or logger")
	}
	plain := rest.CopyConfig(cfg.REST) // the dynamic client speaks JSON only
	plain.ContentType, plain.AcceptContentTypes = "", ""
	client, err := dynamic.NewForConfig(plain)
	if err != nil {
		return nil, fmt.Errorf("allocate addresses: %w", err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(plain)
	if err != nil {
		return nil, fmt.Errorf("allocate addresses: %w", err)
	}
	return &Controller{log: cfg.Log, dynamic: client, discovery: found}, nil
}

func entries() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"}
}

// Run works until ctx ends: while this instance is the leader. It may be called again afterwards.
func (c *Controller) Run(ctx context.Context) error {
	if !c.waitForAPI(ctx) {
		return nil
	}
	r := &run{Controller: c, book: newBook()}
	r.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute))
	defer r.queue.ShutDown()
	factory := dynamicinformer.NewDynamicSharedInformerFactory(c.dynamic, 0)
	informer := factory.ForResource(entries())
	if err := informer.Informer().SetTransform(strip); err != nil {
		return fmt.Errorf("watch ServiceEntries: %w", err)
	}
	add := func(o any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
			r.queue.Add(key)
		}
	}
	registered, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }, DeleteFunc: add})
	if err != nil {
		return fmt.Errorf("watch ServiceEntries: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer cancel()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), registered.HasSynced) {
		return nil
	}
	r.store = informer.Informer().GetStore()
	// What is in use must be known before anything is given.
	for _, key := range r.store.ListKeys() {
		r.see(key)
	}
	stop := context.AfterFunc(ctx, r.queue.ShutDown)
	defer stop()
	r.work(ctx) // one at a time: who has what is known exactly
	return nil
}

// waitForAPI returns once ServiceEntries are served; false when ctx ends first.
func (c *Controller) waitForAPI(ctx context.Context) bool {
	for {
		if list, err := c.discovery.ServerResourcesForGroupVersion(entries().GroupVersion().String()); err == nil {
			for _, r := range list.APIResources {
				if r.Name == entries().Resource {
					return true
				}
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(apiInterval):
		}
	}
}

func strip(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return o, nil
}

// run is one time of being the leader.
type run struct {
	*Controller
	queue workqueue.TypedRateLimitingInterface[string]
	store cache.Store
	book  *book // owned by work
}

func (r *run) work(ctx context.Context) {
	for {
		key, stop := r.queue.Get()
		if stop {
			return
		}
		switch err := r.reconcile(ctx, key); {
		case err == nil || ctx.Err() != nil:
			r.queue.Forget(key)
		case apierrors.IsConflict(err): // it has changed, and comes again
			r.queue.AddRateLimited(key)
		default:
			r.log.Warn("give addresses to a ServiceEntry; it is tried again", "serviceEntry", key, "error", err)
			r.queue.AddRateLimited(key)
		}
		r.queue.Done(key)
	}
}

// see brings the book up to date with an entry; nil when it is gone.
func (r *run) see(key string) *networkingv1.ServiceEntry {
	o, exists, err := r.store.GetByKey(key)
	u, ok := o.(*unstructured.Unstructured)
	if err != nil || !exists || !ok {
		r.book.drop(key)
		return nil
	}
	e, err := decode(u)
	if err != nil {
		r.log.Warn("read a ServiceEntry", "serviceEntry", key, "error", err)
		return nil
	}
	for _, loser := range r.book.see(e) {
		if loser != key {
			r.queue.Add(loser)
		}
	}
	return e
}

func decode(u *unstructured.Unstructured) (*networkingv1.ServiceEntry, error) {
	text, err := u.MarshalJSON()
	if err != nil {
		return nil, err
	}
	e := &networkingv1.ServiceEntry{}
	return e, json.Unmarshal(text, e)
}

// reconcile writes an entry's addresses if they are other ones than its status has.
func (r *run) reconcile(ctx context.Context, key string) error {
	e := r.see(key)
	if e == nil || e.DeletionTimestamp != nil {
		return nil
	}
	want, full := r.book.assign(e)
	if full {
		r.log.Warn("there are no addresses left for the hosts of a ServiceEntry", "serviceEntry", key)
	}
	if same(e, want) {
		return nil
	}
	return r.write(ctx, e, want)
}

func (r *run) write(ctx context.Context, e *networkingv1.ServiceEntry, addresses []*apinetworking.ServiceEntryAddress) error {
	list := []any{} // not left out: the API server would have no status at all then, and refuse that
	for _, a := range addresses {
		list = append(list, map[string]any{"host": a.GetHost(), "value": a.GetValue()})
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": entries().GroupVersion().String(), "kind": "ServiceEntry", "status": map[string]any{"addresses": list},
		// A change in between may be one of its hosts.
		"metadata": map[string]any{"namespace": e.Namespace, "name": e.Name, "resourceVersion": e.ResourceVersion},
	})
	if err != nil {
		return err
	}
	force := true
	_, err = r.dynamic.Resource(entries()).Namespace(e.Namespace).Patch(ctx, e.Name, types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: fieldManager, Force: &force}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		r.log.Info("gave addresses to the hosts of a ServiceEntry", "serviceEntry", entryKey(e), "addresses", listed(addresses))
	}
	return err
}

// listed are addresses for people.
func listed(addresses []*apinetworking.ServiceEntryAddress) string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.GetHost()+"="+a.GetValue())
	}
	return strings.Join(out, " ")
}
