//go:build envtest

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

var shared *apiserver.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(m, func(s *apiserver.Server) { shared = s }))
}

// recorder is a sink that keeps what it is told.
type recorder struct {
	mu      sync.Mutex
	objects map[string]kube.Object
	history []string // "+ Kind ns/name" and "- Kind ns/name"
	flushes int
	synced  int
	errors  []kube.ObjectError
}

func key(gvk schema.GroupVersionKind, name types.NamespacedName) string {
	return gvk.GroupKind().String() + " " + strings.TrimPrefix(name.String(), "/")
}

func (r *recorder) Apply(gvk schema.GroupVersionKind, upserts []kube.Object, deletes []types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range upserts {
		if got := o.GetObjectKind().GroupVersionKind(); got != gvk {
			panic(fmt.Sprintf("%s says that it is %s", gvk, got))
		}
		r.objects[key(gvk, kube.NameOf(o))] = o
		r.history = append(r.history, "+ "+key(gvk, kube.NameOf(o)))
	}
	for _, d := range deletes {
		if r.objects[key(gvk, d)] == nil {
			panic("delete of unknown " + key(gvk, d))
		}
		delete(r.objects, key(gvk, d))
		r.history = append(r.history, "- "+key(gvk, d))
	}
}

func (r *recorder) Flush() { r.mu.Lock(); defer r.mu.Unlock(); r.flushes++ }

func (r *recorder) Synced() { r.mu.Lock(); defer r.mu.Unlock(); r.synced++ }

func (r *recorder) onError(errs []kube.ObjectError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = errs
}

func (r *recorder) get(k string) kube.Object {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.objects[k]
}

// events returns the history since the last call, of objects whose key contains text.
func (r *recorder) events(text string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.history {
		if strings.Contains(h, text) {
			out = append(out, h)
		}
	}
	r.history = nil
	return out
}

// schemaGVK shortens.
type schemaGVK = schema.GroupVersionKind

// run starts a source and waits until it has synced.
func run(t *testing.T, cfg cluster.Config) (*recorder, *cluster.Source) {
	t.Helper()
	r, s := start(t, cfg)
	eventually(t, "synced", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.synced == 1 })
	return r, s
}

// start starts a source for the time of the test.
func start(t *testing.T, cfg cluster.Config) (*recorder, *cluster.Source) {
	t.Helper()
	r := &recorder{objects: map[string]kube.Object{}}
	cfg.Log, cfg.OnError = slog.New(slog.NewTextHandler(t.Output(), nil)), r.onError
	s, err := cluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r, s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, time.Minute, what, ok, nil)
}

// api changes objects, which it makes of manifests.
type api struct {
	t      *testing.T
	client dynamic.Interface
}

func newAPI(t *testing.T, config *rest.Config) api {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return api{t, client}
}

func (a api) of(manifest string) (dynamic.ResourceInterface, *unstructured.Unstructured) {
	a.t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		a.t.Fatal(err)
	}
	return a.resource(o.GroupVersionKind(), o.GetNamespace()), o
}

func (a api) resource(gvk schema.GroupVersionKind, namespace string) dynamic.ResourceInterface {
	plural := gvk.GroupVersion().WithResource(strings.ToLower(gvk.Kind) + "s")
	for _, k := range kube.Kinds() {
		if k.GVK.GroupKind() == gvk.GroupKind() {
			plural.Resource = k.Resource
		}
	}
	if namespace == "" {
		return a.client.Resource(plural)
	}
	return a.client.Resource(plural).Namespace(namespace)
}

// apply creates or changes.
func (a api) apply(manifest string) {
	a.t.Helper()
	r, o := a.of(manifest)
	if _, err := r.Apply(a.t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
		a.t.Fatal(err)
	}
}

func (a api) status(manifest string) {
	a.t.Helper()
	r, o := a.of(manifest)
	if _, err := r.ApplyStatus(a.t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
		a.t.Fatal(err)
	}
}

func (a api) delete(manifest string) {
	a.t.Helper()
	r, o := a.of(manifest)
	zero := int64(0)
	if err := r.Delete(context.Background(), o.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		a.t.Fatal(err)
	}
}

func (a api) namespace(name, labels string) {
	a.t.Helper()
	a.apply("{apiVersion: v1, kind: Namespace, metadata: {name: " + name + ", labels: {" + labels + "}}}")
}

func label(o kube.Object) string {
	if o == nil {
		return ""
	}
	return "v" + o.GetLabels()["v"]
}

func dump(o any) string {
	out, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// checkLeaks looks, when everything that the test starts has been ended, whether something of it goes on.
func checkLeaks(t *testing.T) {
	t.Helper()
	// The connections of idle clients end by themselves.
	ignored := []goleak.Option{
		goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
	}
	t.Cleanup(func() {
		var left error
		wait.Until(t, time.Minute, "nothing is left", func() bool {
			left = goleak.Find(ignored...)
			return left == nil
		}, func() string { return left.Error() })
	})
}
