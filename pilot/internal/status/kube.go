package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
)

const (
	// fieldManager owns what is written here.
	fieldManager = "istiod-status"
	// writers write at the same time, each another object.
	writers = 8
	// Requests per second to the API server, on average and at once: statuses must not keep it from anything else.
	requestRate, requestBurst = 100, 200
	// pageSize of the lists that are read at the start. Small ones keep little in memory: values of JSON take several times the text.
	pageSize = 100
)

// KubeConfig of a writer to the Kubernetes API.
type KubeConfig struct {
	REST *rest.Config
	Log  *slog.Logger
	// Now is the time that conditions change at; nil is the clock's.
	Now func() time.Time
}

// Kube writes statuses to the API server. It takes them at all times and writes them while Run runs: while this instance is the
// leader. Conditions, parents and listeners that others have written stay as they are.
type Kube struct {
	// immutable
	log     *slog.Logger
	now     func() time.Time
	dynamic dynamic.Interface
	core    corev1client.ServicesGetter
	first   chan struct{} // closed with the first statuses

	mu     sync.Mutex
	wanted map[string]registry.Status // guarded by mu: what every object is to have
	queue  queue                      // guarded by mu: nil while Run does not run
	begun  bool                       // guarded by mu: first is closed
}

type queue = workqueue.TypedRateLimitingInterface[object]

// object names one; its kind says which version its status is written in.
type object struct {
	schema.GroupVersionKind
	namespace, name string
}

func (o object) String() string { return o.Kind + " " + o.namespace + "/" + o.name }

func objectOf(s registry.Status) object { return object{s.GroupVersionKind, s.Namespace, s.Name} }

// NewKube returns a writer that knows nothing.
func NewKube(cfg KubeConfig) (*Kube, error) {
	if cfg.REST == nil || cfg.Log == nil {
		return nil, errors.New("write statuses: no client configuration or logger")
	}
	config := rest.CopyConfig(cfg.REST)
	config.ContentType, config.AcceptContentTypes = "", "" // the dynamic client speaks JSON only
	config.QPS, config.Burst, config.RateLimiter = requestRate, requestBurst, nil
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("write statuses: %w", err)
	}
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("write statuses: %w", err)
	}
	k := &Kube{log: cfg.Log, now: cfg.Now, dynamic: client, core: core, first: make(chan struct{}), wanted: map[string]registry.Status{}}
	if k.now == nil {
		k.now = time.Now
	}
	return k, nil
}

// Changed takes new statuses; one without content is of an object that has none any more. It does not block. The first call has
// all that there are.
func (k *Kube) Changed(statuses []registry.Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range statuses {
		if s.Content == nil {
			delete(k.wanted, s.Key())
		} else {
			k.wanted[s.Key()] = s
		}
		if k.queue != nil {
			k.queue.Add(objectOf(s))
		}
	}
	if !k.begun {
		k.begun = true
		close(k.first)
	}
}

// Run writes until ctx ends. It may be called again afterwards.
func (k *Kube) Run(ctx context.Context) error {
	select { // what nobody has judged yet is not to be taken away
	case <-ctx.Done():
		return nil
	case <-k.first:
	}
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[object](100*time.Millisecond, time.Minute))
	k.mu.Lock()
	k.queue = q
	k.mu.Unlock()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() { k.write(ctx, q) })
	}
	all.Go(func() { k.compareAll(ctx, q) })
	<-ctx.Done()
	k.mu.Lock()
	k.queue = nil
	k.mu.Unlock()
	q.ShutDown()
	all.Wait()
	return nil
}

// write takes objects from the queue until it is shut down.
func (k *Kube) write(ctx context.Context, q queue) {
	for {
		o, stop := q.Get()
		if stop {
			return
		}
		switch err := k.update(ctx, o); {
		case err == nil || ctx.Err() != nil:
			q.Forget(o)
		case apierrors.IsConflict(err): // it has changed meanwhile: at once once more
			q.AddRateLimited(o)
		default:
			k.log.Warn("write the status of an object; it is tried again", "object", o.String(), "error", err)
			q.AddRateLimited(o)
		}
		q.Done(o)
	}
}

// get returns the status that an object is to have, if it is to have one.
func (k *Kube) get(o object) (registry.Status, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.wanted[registry.Status{GroupVersionKind: o.GroupVersionKind, Namespace: o.namespace, Name: o.name}.Key()]
	return s, ok
}

func (k *Kube) wants(o object) bool {
	_, ok := k.get(o)
	return ok
}

// content is what an object is to have; nil for nothing.
func (k *Kube) content(o object) (map[string]any, error) {
	s, ok := k.get(o)
	if !ok {
		return nil, nil
	}
	var out map[string]any
	if err := json.Unmarshal(s.Content, &out); err != nil {
		return nil, fmt.Errorf("read the status: %w", err)
	}
	return out, nil
}

func (k *Kube) client(o object) dynamic.ResourceInterface {
	client := k.dynamic.Resource(o.GroupVersion().WithResource(plural(o.Kind)))
	if o.namespace == "" {
		return client
	}
	return client.Namespace(o.namespace)
}

// update brings one object's status in line with what it is to be.
func (k *Kube) update(ctx context.Context, o object) error {
	for _, version := range versions(o.GroupVersionKind) {
		o.Version = version
		live, err := k.client(o).Get(ctx, o.name, metav1.GetOptions{})
		switch {
		case err == nil:
			return k.apply(ctx, o, live)
		case !apierrors.IsNotFound(err):
			return err
		}
	}
	return nil // gone, or its kind is not installed
}

func (k *Kube) apply(ctx context.Context, o object, live *unstructured.Unstructured) error {
	wanted, err := k.content(o)
	if err != nil {
		return err
	}
	status, _ := live.Object["status"].(map[string]any)
	next, changed := plan(o.Group, status, wanted, owns(live), k.now())
	if !changed {
		return nil
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": o.GroupVersion().String(), "kind": o.Kind,
		// Lists that are replaced as a whole have what others wrote as it was at this version.
		"metadata": map[string]any{"namespace": o.namespace, "name": o.name, "resourceVersion": live.GetResourceVersion()},
		"status":   next,
	})
	if err != nil {
		return err
	}
	force := true
	_, err = k.client(o).Patch(ctx, o.name, types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: fieldManager, Force: &force}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// compareAll looks at every object once: for those whose status is another one, and for those that have one from an earlier leader
// and are to have none.
func (k *Kube) compareAll(ctx context.Context, q queue) {
	for _, kind := range kinds() {
		for ctx.Err() == nil {
			compare := k.compareKind
			if kind.Group == "" {
				compare = k.compareServices
			}
			err := k.inAnyVersion(kind, func(kind schema.GroupVersionKind) error { return compare(ctx, q, kind) })
			if err == nil || apierrors.IsNotFound(err) || ctx.Err() != nil {
				break
			}
			k.log.Warn("read the statuses of a kind; it is tried again", "kind", kind.Kind, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
		}
	}
}

// inAnyVersion reads a kind in the first version that is served.
func (k *Kube) inAnyVersion(kind schema.GroupVersionKind, read func(schema.GroupVersionKind) error) (err error) {
	for _, kind.Version = range versions(kind) {
		if err = read(kind); !apierrors.IsNotFound(err) {
			break
		}
	}
	return err
}

func (k *Kube) compareKind(ctx context.Context, q queue, kind schema.GroupVersionKind) error {
	client := k.dynamic.Resource(kind.GroupVersion().WithResource(plural(kind.Kind)))
	options := metav1.ListOptions{Limit: pageSize}
	for {
		list, err := client.List(ctx, options)
		if err != nil {
			return err
		}
		for i := range list.Items {
			live := &list.Items[i]
			status, _ := live.Object["status"].(map[string]any)
			if err := k.compare(q, object{kind, live.GetNamespace(), live.GetName()}, status, owns(live)); err != nil {
				return err
			}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// compareServices is compareKind for Services, of which there are many: they are read in a form that takes a fraction of the time and
// memory. Of their status, conditions are all that is written here.
func (k *Kube) compareServices(ctx context.Context, q queue, kind schema.GroupVersionKind) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		list, err := k.core.Services(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return err
		}
		for i := range list.Items {
			live := &list.Items[i]
			o := object{kind, live.Namespace, live.Name}
			if len(live.Status.Conditions) == 0 && !k.wants(o) {
				continue
			}
			status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&live.Status)
			if err != nil {
				return fmt.Errorf("read the status of %s: %w", o, err)
			}
			if err := k.compare(q, o, status, owns(live)); err != nil {
				return err
			}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// compare queues an object whose status is another one than it is to be.
func (k *Kube) compare(q queue, o object, status map[string]any, owns bool) error {
	wanted, err := k.content(o)
	if err != nil {
		return err
	}
	if _, changed := plan(o.Group, status, wanted, owns, k.now()); changed {
		q.Add(o)
	}
	return nil
}

// owns tells whether anything of an object's status was written here.
func owns(o metav1.Object) bool {
	return slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == fieldManager && f.Subresource == "status"
	})
}
