// Package rootcert puts what peers verify with into a ConfigMap of every namespace, and keeps it there.
package rootcert

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// ConfigMaps by the names that Istio gives them, and their keys.
const (
	RootsName = "istio-ca-root-cert"
	RootsKey  = "root-cert.pem"
	CRLName   = "istio-ca-crl"
	CRLKey    = "ca-crl.pem"
)

const (
	workers = 4
	// configLabel tells tools that an object is part of the mesh's configuration.
	configLabel = "istio.io/config"
)

// Config of a Distributor.
type Config struct {
	API kubernetes.Interface
	// Name of the ConfigMaps.
	Name string
	// Data that they have to have; nothing is written while it is empty.
	Data func() map[string]string
	// Selected tells whether a namespace is part of the mesh. Those of the cluster itself never are.
	Selected func(*corev1.Namespace) bool
	Log      *slog.Logger
}

// Distributor writes ConfigMaps.
type Distributor struct {
	config Config
	wake   chan struct{} // holds a token: look at all namespaces
}

// New returns a distributor.
func New(config Config) *Distributor {
	return &Distributor{config: config, wake: make(chan struct{}, 1)}
}

// Refresh says that the data or what is selected has changed. It may be called at any time.
func (d *Distributor) Refresh() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Ignored tells whether a namespace is the cluster's own business.
func Ignored(namespace string) bool {
	switch namespace {
	case metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, "local-path-storage":
		return true
	}
	return false
}

// run is one time of leading.
type run struct {
	*Distributor
	queue      workqueue.TypedRateLimitingInterface[string] // names of namespaces
	namespaces cache.SharedIndexInformer
	maps       cache.SharedIndexInformer
}

// Run works until ctx ends.
func (d *Distributor) Run(ctx context.Context) error {
	r := &run{Distributor: d, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))}
	defer r.queue.ShutDown()
	factory := informers.NewSharedInformerFactoryWithOptions(d.config.API, 0, informers.WithTransform(slim))
	named := informers.NewSharedInformerFactoryWithOptions(d.config.API, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, d.config.Name).String()
	}), informers.WithTransform(slim))
	r.namespaces, r.maps = factory.Core().V1().Namespaces().Informer(), named.Core().V1().ConfigMaps().Informer()
	if err := r.observe(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	factory.StartWithContext(ctx)
	named.StartWithContext(ctx)
	defer func() { cancel(); factory.Shutdown(); named.Shutdown() }()
	if !cache.WaitForCacheSync(ctx.Done(), r.namespaces.HasSynced, r.maps.HasSynced) {
		return nil
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer r.queue.ShutDown()
	for range workers {
		group.Go(func() { r.work(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			for _, key := range r.namespaces.GetStore().ListKeys() {
				r.queue.Add(key)
			}
		}
	}
}

// slim keeps of an object what is looked at.
func slim(o any) (any, error) {
	if meta, ok := o.(metav1.Object); ok {
		meta.SetManagedFields(nil)
		meta.SetAnnotations(nil)
	}
	return o, nil
}

// observe puts the namespaces that events are about into the queue.
func (r *run) observe() error {
	_, err := r.namespaces.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { r.enqueue(o, metav1.Object.GetName) },
		UpdateFunc: func(_, o any) { r.enqueue(o, metav1.Object.GetName) },
	})
	if err != nil {
		return fmt.Errorf("watch namespaces: %w", err)
	}
	_, err = r.maps.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, o any) { r.enqueue(o, metav1.Object.GetNamespace) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			r.enqueue(o, metav1.Object.GetNamespace)
		},
	})
	if err != nil {
		return fmt.Errorf("watch ConfigMaps %s: %w", r.config.Name, err)
	}
	return nil
}

func (r *run) enqueue(o any, name func(metav1.Object) string) {
	if meta, ok := o.(metav1.Object); ok {
		r.queue.Add(name(meta))
	}
}

func (r *run) work(ctx context.Context) {
	for {
		namespace, over := r.queue.Get()
		if over {
			return
		}
		if err := r.reconcile(ctx, namespace); err == nil || ctx.Err() != nil {
			r.queue.Forget(namespace)
		} else {
			// A conflict is the rule when somebody else writes at the same time; it is said when it lasts.
			if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) || r.queue.NumRequeues(namespace) > 3 {
				r.config.Log.Warn("ConfigMap not written; trying again", "namespace", namespace, "name", r.config.Name, "error", err)
			}
			r.queue.AddRateLimited(namespace)
		}
		r.queue.Done(namespace)
	}
}

// reconcile makes the ConfigMap of one namespace what it has to be.
func (r *run) reconcile(ctx context.Context, name string) error {
	data := r.config.Data()
	if len(data) == 0 || Ignored(name) {
		return nil
	}
	o, known, err := r.namespaces.GetStore().GetByKey(name)
	namespace, ok := o.(*corev1.Namespace)
	if err != nil || !known || !ok || namespace.DeletionTimestamp != nil || namespace.Status.Phase == corev1.NamespaceTerminating || !r.config.Selected(namespace) {
		return err
	}
	api := r.config.API.CoreV1().ConfigMaps(name)
	o, known, err = r.maps.GetStore().GetByKey(name + "/" + r.config.Name)
	if err != nil {
		return err
	}
	current, ok := o.(*corev1.ConfigMap)
	if !known || !ok {
		_, err = api.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: r.config.Name, Namespace: name, Labels: map[string]string{configLabel: "true"}}, Data: data,
		}, metav1.CreateOptions{})
		return r.settled(err)
	}
	if maps.Equal(current.Data, data) && current.Labels[configLabel] == "true" && len(current.BinaryData) == 0 {
		return nil
	}
	// What the informer keeps lacks fields: read it as it is.
	if current, err = api.Get(ctx, r.config.Name, metav1.GetOptions{}); err != nil {
		return r.settled(err)
	}
	current.Data, current.BinaryData = data, nil
	if current.Labels == nil {
		current.Labels = map[string]string{}
	}
	current.Labels[configLabel] = "true"
	_, err = api.Update(ctx, current, metav1.UpdateOptions{})
	return r.settled(err)
}

// settled leaves out the errors after which there is nothing to do, or an event will come.
func (r *run) settled(err error) error {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w: the control plane's ClusterRole has to allow ConfigMaps of this name", err)
	}
	return err
}
