// Package named follows single objects of the API by their names, which is all that the control plane may read of Secrets.
package named

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// object is a pointer to a type of the API.
type object[T any] interface {
	*T
	runtime.Object
	metav1.Object
}

// client is the part of a typed client that lists and watches.
type client[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// ConfigMap calls changed with the object, or nil when there is none, at the start and whenever it has changed, until ctx ends. An
// API server that is away changes nothing.
func ConfigMap(ctx context.Context, api kubernetes.Interface, namespace, name string, changed func(*corev1.ConfigMap)) error {
	return follow(ctx, api, api.CoreV1().ConfigMaps(namespace), name, changed)
}

// Secret is as [ConfigMap] for a Secret.
func Secret(ctx context.Context, api kubernetes.Interface, namespace, name string, changed func(*corev1.Secret)) error {
	return follow(ctx, api, api.CoreV1().Secrets(namespace), name, changed)
}

func follow[T any, P object[T], L runtime.Object](ctx context.Context, api kubernetes.Interface, kind client[L], name string, changed func(P)) error {
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	list := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = only
			return kind.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = only
			return kind.Watch(ctx, options)
		},
	}
	wake := make(chan struct{}, 1) // holds a token: look at the store
	poke := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(list, api),
		ObjectType:    P(new(T)),
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
		},
	})
	running := make(chan struct{})
	go func() {
		defer close(running)
		controller.RunWithContext(ctx)
	}()
	defer func() { <-running }()
	if !cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
		return nil
	}
	poke()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
		found := P(nil)
		for _, o := range store.List() {
			p, ok := o.(P)
			if !ok {
				return fmt.Errorf("watch %s: got %T", name, o)
			}
			if p.GetName() == name {
				found = p
			}
		}
		changed(found)
	}
}
