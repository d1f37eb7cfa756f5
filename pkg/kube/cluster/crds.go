package cluster

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// crdKind is what kinds are followed by; it is not delivered.
func crdKind() kube.Kind {
	gvk := schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
	return kube.Kind{GVK: gvk, Resource: "customresourcedefinitions", ClusterWide: true}
}

// crdName is that of the CRD of a kind.
func crdName(k kube.Kind) string { return k.Resource + "." + k.GVK.Group }

// followCRDs tells the queue which CRDs there are. Only their names are read.
func (f *follower) followCRDs(ctx context.Context) {
	client := f.clients.crds.Resource(f.kind.GVK.GroupVersion().WithResource(f.kind.Resource))
	silent := logr.Discard()
	backoff := retries()
	reflector := cache.NewReflectorWithOptions(&crdListWatch{follower: f, client: client}, &metav1.PartialObjectMetadata{}, crdStore{f.queue, func() { f.health.found(f.name()) }}, cache.ReflectorOptions{
		Name: "cluster", TypeDescription: f.kind.GVK.Kind, Logger: &silent, Backoff: &backoff,
	})
	ctx = klog.NewContext(ctx, silent)
	again := retries()
	// It ends with the context only.
	_ = again.DelayWithReset(clock.RealClock{}, retryReset).Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		if err := reflector.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			f.note(ctx, err)
		}
		return ctx.Err() != nil, nil
	})
}

// crdListWatch makes the requests of the reflector of CRDs.
type crdListWatch struct {
	follower *follower
	client   metadata.Getter
}

// ListWithContext implements cache.ListerWatcherWithContext.
func (l *crdListWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	out, err := l.client.List(ctx, options)
	l.outcome(ctx, err)
	return out, err
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (l *crdListWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	out, err := l.client.Watch(ctx, options)
	l.outcome(ctx, err)
	return out, err
}

// List implements cache.ListerWatcher.
func (l *crdListWatch) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), options)
}

// Watch implements cache.ListerWatcher.
func (l *crdListWatch) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), options)
}

func (l *crdListWatch) outcome(ctx context.Context, err error) {
	(&listWatch{follower: l.follower}).outcome(ctx, err)
}

// crdStore forwards names.
type crdStore struct {
	queue *queue
	found func()
}

// Bookmark implements cache.ReflectorBookmarkStore.
func (s crdStore) Bookmark(string) error {
	s.found()
	return nil
}

// Add implements cache.ReflectorStore.
func (s crdStore) Add(in any) error {
	o, ok := in.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("the API server sent a %T for a CustomResourceDefinition", in)
	}
	s.queue.add(event{present: o.Name})
	s.found()
	return nil
}

// Update implements cache.ReflectorStore.
func (s crdStore) Update(in any) error { return s.Add(in) }

// Delete implements cache.ReflectorStore.
func (s crdStore) Delete(in any) error {
	o, ok := in.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("the API server sent a %T for a CustomResourceDefinition", in)
	}
	s.queue.add(event{absent: o.Name})
	s.found()
	return nil
}

// Replace implements cache.ReflectorStore.
func (s crdStore) Replace(list []any, _ string) error {
	names := map[string]bool{}
	for _, in := range list {
		o, ok := in.(*metav1.PartialObjectMetadata)
		if !ok {
			return fmt.Errorf("the API server sent a %T for a CustomResourceDefinition", in)
		}
		names[o.Name] = true
	}
	s.queue.add(event{presentAll: names})
	s.found()
	return nil
}

// Resync implements cache.ReflectorStore.
func (s crdStore) Resync() error { return nil }

// Transformer implements cache.TransformingStore: CRDs are large even as metadata.
func (s crdStore) Transformer() cache.TransformFunc {
	return func(in any) (any, error) {
		if o, ok := in.(*metav1.PartialObjectMetadata); ok {
			return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: o.Name}}, nil
		}
		return in, nil
	}
}

var _ cache.TransformingStore = crdStore{}
