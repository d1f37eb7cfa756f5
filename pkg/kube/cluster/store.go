package cluster

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// forwarder is the store of a reflector: it queues what it is told and keeps nothing. It is called from one goroutine.
type forwarder struct {
	kind  schema.GroupVersionKind
	queue *queue
	strip *stripper
	// reduce is applied to what strip has left; nil is nothing.
	reduce func(kube.Object) kube.Object
	// found is called whenever something was read, replaced when the kind was listed.
	found, replaced func()
}

var (
	_ cache.TransformingStore      = (*forwarder)(nil)
	_ cache.ReflectorBookmarkStore = (*forwarder)(nil)
)

// Bookmark implements cache.ReflectorBookmarkStore.
func (f *forwarder) Bookmark(string) error {
	f.found()
	return nil
}

// Transformer implements cache.TransformingStore: objects are reduced while they are streamed, before all of them are there.
func (f *forwarder) Transformer() cache.TransformFunc {
	return func(in any) (any, error) {
		if _, done := in.(*put); done {
			return in, nil
		}
		return f.convert(in)
	}
}

// convert makes a put of what a decoder made. It is idempotent as regards a put's object, which has been reduced.
func (f *forwarder) convert(in any) (*put, error) {
	switch o := in.(type) {
	case *put:
		return o, nil
	case *item:
		p := &put{name: types.NamespacedName{Namespace: o.Namespace, Name: o.Name}, object: o.object, errs: o.errs}
		if o.object != nil {
			f.strip.strip(o.object)
			p.object = f.reduced(o.object)
		}
		return p, nil
	case kube.Object:
		f.strip.strip(o)
		o.GetObjectKind().SetGroupVersionKind(f.kind)
		return &put{name: kube.NameOf(o), object: f.reduced(o)}, nil
	}
	return nil, fmt.Errorf("the API server sent a %T for %s", in, f.kind.Kind)
}

func (f *forwarder) reduced(o kube.Object) kube.Object {
	if f.reduce == nil {
		return o
	}
	return f.reduce(o)
}

// Add implements cache.ReflectorStore.
func (f *forwarder) Add(in any) error {
	p, err := f.convert(in)
	if err != nil {
		return err
	}
	f.queue.add(event{kind: f.kind, put: p})
	f.found()
	return nil
}

// Update implements cache.ReflectorStore.
func (f *forwarder) Update(in any) error { return f.Add(in) }

// Delete implements cache.ReflectorStore.
func (f *forwarder) Delete(in any) error {
	p, err := f.convert(in)
	if err != nil {
		return err
	}
	f.queue.add(event{kind: f.kind, remove: &p.name})
	f.found()
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *forwarder) Replace(list []any, _ string) error {
	all := make([]put, 0, len(list))
	for _, in := range list {
		p, err := f.convert(in)
		if err != nil {
			return err
		}
		all = append(all, *p)
	}
	f.queue.add(event{kind: f.kind, replace: &all})
	f.found()
	f.replaced()
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *forwarder) Resync() error { return nil }
