package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Config says what to watch.
type Config struct {
	// REST is where the API server is; RESTConfig makes one.
	REST *rest.Config
	// Kinds to watch, in any version that kube.Decode knows. Nil is every kind that kube.Decode knows, Secrets included;
	// MeshKinds are those that a control plane reads.
	Kinds []schema.GroupVersionKind
	// Node restricts pods to those of one node. Empty is all.
	Node string
	// Selectors choose namespaces by their labels: an object in a namespace that no selector matches is not delivered. No
	// selectors choose all. It is called from Run's goroutine, at the start and after Refresh. Nil is all, always.
	Selectors func() []labels.Selector
	// Reduce, which may be nil, returns what is kept and delivered of an object that nobody else has seen. It is called from several
	// goroutines. What it returns of a built-in kind is compared as a plain Go struct.
	Reduce func(kube.Object) kube.Object
	// Log must be set.
	Log *slog.Logger
	// OnError, which may be nil, gets everything that is wrong at present whenever that changes. An object that is invalid has
	// no file; its last good version stays. It is called from Run's goroutine.
	OnError func([]kube.ObjectError)
	// Metrics hooks, each of which may be nil.
	Metrics Metrics
}

// Metrics are called from several goroutines.
type Metrics struct {
	// Event counts a change that was delivered; event is add, update or delete.
	Event func(kind schema.GroupVersionKind, event string)
	// Relist counts that a kind was listed from the start.
	Relist func(kind schema.GroupVersionKind)
	// Failure counts that a list or a watch failed.
	Failure func(kind schema.GroupVersionKind)
}

// MeshKinds returns the kinds that a control plane reads: all that kube.Decode knows, except those that only say how pods are
// run (apps, ServiceAccount), what the API server itself decides by (Role, RoleBinding), and those that are read one by one
// (ConfigMap, Secret).
func MeshKinds() []schema.GroupVersionKind {
	var out []schema.GroupVersionKind
	for _, k := range kube.Kinds() {
		switch {
		case k.GVK.Group == "apps", k.GVK.Group == rbacv1.GroupName:
		case k.GVK.Group == "" && slices.Contains([]string{"ServiceAccount", "ConfigMap", "Secret"}, k.GVK.Kind):
		default:
			out = append(out, k.GVK)
		}
	}
	return out
}

// chosen returns the rows of the kinds to watch, in the order in which they are delivered.
func (c Config) chosen() ([]kube.Kind, error) {
	all := kube.Kinds()
	if c.Kinds == nil {
		return all, nil
	}
	want := map[schema.GroupKind]bool{}
	for _, gvk := range c.Kinds {
		want[gvk.GroupKind()] = true
	}
	out := slices.DeleteFunc(all, func(k kube.Kind) bool {
		found := want[k.GVK.GroupKind()]
		delete(want, k.GVK.GroupKind())
		return !found
	})
	for gk := range want {
		return nil, fmt.Errorf("watch the API server: kind %s is not known", gk)
	}
	return out, nil
}

func (c Config) check() error {
	if c.REST == nil {
		return errors.New("watch the API server: no configuration of the client")
	}
	if c.Log == nil {
		return errors.New("watch the API server: no logger")
	}
	return nil
}
