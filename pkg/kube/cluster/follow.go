package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Retries of lists and watches, and of the search for the version of a kind. They start quickly, so that a restart of the API
// server is hardly noticed, and end low enough for many clients of one that is overloaded.
const (
	retryFirst  = 100 * time.Millisecond
	retryLast   = 5 * time.Second
	retryFactor = 2
	retryJitter = 0.5
	// retryReset is how long there must be no failure for the first retry to be quick again.
	retryReset = time.Minute
)

func retries() wait.Backoff {
	return wait.Backoff{Duration: retryFirst, Factor: retryFactor, Jitter: retryJitter, Steps: 1000, Cap: retryLast}
}

// follower lists and watches one kind for as long as its context lives. One goroutine runs it.
type follower struct {
	kind    kube.Kind
	custom  bool // served because of a CRD, in versions that have to be found
	node    string
	clients *clients
	queue   *queue
	health  *health
	metrics Metrics
	reduce  func(kube.Object) kube.Object
	// changed has an element when the CRD changed.
	changed chan struct{}
}

// run ends with the context.
func (f *follower) run(ctx context.Context) {
	defer f.health.forget(f.name())
	delay := retries()
	pause := delay.DelayWithReset(clock.RealClock{}, retryReset)
	for ctx.Err() == nil {
		version, err := f.version(ctx)
		if err == nil {
			err = f.reflect(ctx, version)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.note(ctx, err)
		}
		select {
		case <-ctx.Done():
		case <-f.changed:
		case <-time.After(pause()):
		}
	}
}

// errUnserved is that a CRD exists, but none of the versions that the mesh reads is served, or not yet.
var errUnserved = errors.New("not served")

// version finds the one to read: that of the Go type when it is served, else the first other.
func (f *follower) version(ctx context.Context) (string, error) {
	if !f.custom {
		return f.kind.GVK.Version, nil
	}
	name := f.kind.Resource
	for _, version := range f.kind.Versions {
		gv := schema.GroupVersion{Group: f.kind.GVK.Group, Version: version}
		list, err := f.clients.resources(ctx, gv)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("find the versions of %s: %w", f.kind.GVK.Kind, err)
		}
		for _, r := range list.APIResources {
			if r.Name == name {
				return version, nil
			}
		}
	}
	return "", fmt.Errorf("%s.%s in version %s: %w", name, f.kind.GVK.Group, strings.Join(f.kind.Versions, ", "), errUnserved)
}

// reflect lists and watches until that fails in a way that asks for another version, or the context ends.
func (f *follower) reflect(ctx context.Context, version string) error {
	client, err := f.clients.of(f.kind.GVK.GroupVersion(), version, f.custom)
	if err != nil {
		return err
	}
	lw := &listWatch{follower: f, client: client, resource: f.kind.Resource}
	store := &forwarder{kind: f.kind.GVK, queue: f.queue, strip: newStripper(), reduce: f.reduce, found: func() { f.health.found(f.name()) }, replaced: func() {
		if f.metrics.Relist != nil {
			f.metrics.Relist(f.kind.GVK)
		}
	}}
	silent := logr.Discard() // failures are told by listWatch
	backoff := retries()
	reflector := cache.NewReflectorWithOptions(lw, nil, store, cache.ReflectorOptions{
		Name: "cluster", TypeDescription: f.kind.GVK.String(), Logger: &silent, Backoff: &backoff,
	})
	ctx = klog.NewContext(ctx, silent)
	again := retries()
	return again.DelayWithReset(clock.RealClock{}, retryReset).Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		err := reflector.ListAndWatchWithContext(ctx)
		if ctx.Err() != nil {
			return true, nil
		}
		if err != nil && f.custom && apierrors.IsNotFound(err) {
			return true, err
		}
		if err != nil {
			f.note(ctx, err)
		}
		return false, nil
	})
}

// note tells what is wrong: to the log once while it lasts, and to the user when waiting does not help.
func (f *follower) note(ctx context.Context, err error) {
	problem := kube.ObjectError{Kind: f.kind.GVK.Kind}
	switch {
	case errors.Is(err, errUnserved):
		problem.Warning, problem.Reason = true, fmt.Sprintf("the API server has a CustomResourceDefinition, but does not serve %s", strings.TrimSuffix(err.Error(), ": "+errUnserved.Error()))
		f.queue.add(event{kind: f.kind.GVK, settled: &problem})
	case apierrors.IsNotFound(err):
		// the CRD went, or the version: the next round finds out
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		problem.Reason = fmt.Sprintf("cannot be read: %v; allow the account to list and watch %s in the API group %q", err, f.kind.Resource, f.kind.GVK.Group)
		f.queue.add(event{kind: f.kind.GVK, failed: &problem})
		f.health.refused(f.name(), err)
	default:
		f.lost(ctx, err)
	}
}

// lost is called on each failure.
func (f *follower) lost(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if f.metrics.Failure != nil {
		f.metrics.Failure(f.kind.GVK)
	}
	f.health.lost(f.name(), err)
}

// name is for people.
func (f *follower) name() string {
	return strings.TrimSuffix(f.kind.Resource+"."+f.kind.GVK.Group, ".")
}

// listWatch makes the requests of a reflector.
type listWatch struct {
	follower *follower
	client   rest.Interface
	resource string
}

var _ cache.ListerWatcherWithContext = (*listWatch)(nil)

// ListWithContext implements cache.ListerWatcherWithContext.
func (l *listWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	out, err := l.request(&options).Do(ctx).Get()
	l.outcome(ctx, err)
	return out, err
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (l *listWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	out, err := l.request(&options).Watch(ctx)
	l.outcome(ctx, err)
	return out, err
}

// List implements cache.ListerWatcher.
func (l *listWatch) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), options)
}

// Watch implements cache.ListerWatcher.
func (l *listWatch) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), options)
}

func (l *listWatch) request(options *metav1.ListOptions) *rest.Request {
	if l.follower.node != "" && l.follower.kind.GVK == kube.PodGVK() {
		options.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", l.follower.node).String()
	}
	request := l.client.Get().Resource(l.resource).VersionedParams(options, metav1.ParameterCodec).MaxRetries(0) // the reflector retries, sooner
	if options.TimeoutSeconds != nil {
		request = request.Timeout(time.Duration(*options.TimeoutSeconds) * time.Second)
	}
	return request
}

// outcome notes failures of requests, which a reflector retries for as long as it takes without a word.
func (l *listWatch) outcome(ctx context.Context, err error) {
	switch {
	case err == nil:
		// what comes of it will tell: connections to a server that ends may be accepted and closed
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsNotFound(err), apierrors.IsInvalid(err),
		apierrors.IsResourceExpired(err), apierrors.IsGone(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err):
		// answers, which the follower or the reflector deals with
	default:
		l.follower.lost(ctx, err)
	}
}

// isCustom tells kinds that are served because of a CRD.
func isCustom(gvk schema.GroupVersionKind) bool {
	switch gvk.Group {
	case corev1.GroupName, "apps", "discovery.k8s.io", rbacv1.GroupName:
		return false
	}
	return true
}
