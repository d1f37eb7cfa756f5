package collect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/analyzers"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// api serves many pods in pages, some other objects, and refuses some.
type api struct {
	pods    int
	objects map[string][]string // by path
	denied  map[string]bool
	stuck   string // a path that is not answered
	pages   atomic.Int32
	most    atomic.Int32 // items of a page
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == a.stuck:
		<-r.Context().Done()
	case a.denied[r.URL.Path]:
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"you may not"}`)
	case r.URL.Path == "/api/v1/pods":
		a.servePods(w, r)
	case r.URL.Path == "/apis/gateway.networking.k8s.io":
		fmt.Fprint(w, `{"versions":[{"version":"v1alpha2"}]}`)
	case r.URL.Path == "/apis/gateway.networking.k8s.io/v1alpha2":
		fmt.Fprint(w, `{"resources":[{"name":"httproutes"},{"name":"httproutes/status"},{"name":"backendtlspolicies"},{"name":"tlsroutes"}]}`)
	case a.objects[r.URL.Path] != nil:
		fmt.Fprintf(w, `{"kind":"List","apiVersion":"v1","metadata":{},"items":[%s]}`, strings.Join(a.objects[r.URL.Path], ","))
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}
}

func (a *api) servePods(w http.ResponseWriter, r *http.Request) {
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	if limit == 0 {
		limit = a.pods
	}
	first, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	a.pages.Add(1)
	var items []string
	for i := first; i < min(first+limit, a.pods); i++ {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":"app-%d","namespace":"shop","labels":{"app":"app-%d"},"annotations":{"padding":%q,"ambient.istio.io/redirection":"enabled"},`+
			`"managedFields":[{"manager":%q}]},"spec":{"nodeName":"n","serviceAccountName":"app","containers":[{"name":"app","image":"app:1","env":[{"name":"PASSWORD","value":%q}]}]},`+
			`"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, i, i%100, strings.Repeat("p", 200), strings.Repeat("m", 2000), strings.Repeat("e", 2000)))
	}
	a.most.Store(max(a.most.Load(), int32(len(items))))
	next := ""
	if first+limit < a.pods {
		next = strconv.Itoa(first + limit)
	}
	data, _ := json.Marshal(next)
	fmt.Fprintf(w, `{"metadata":{"continue":%s},"items":[%s]}`, data, strings.Join(items, ","))
}

func connect(t *testing.T, a *api) *reach.Mesh {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	mesh, err := reach.Cluster(&rest.Config{Host: server.URL, QPS: -1}, "default")
	if err != nil {
		t.Fatal(err)
	}
	return mesh
}

// TestMesh: 5000 pods are read in pages, of each only what is looked at is kept, and what may not be read is noted.
func TestMesh(t *testing.T) {
	const pods = 5000
	a := &api{pods: pods, denied: map[string]bool{"/api/v1/nodes": true}, objects: map[string][]string{
		"/api/v1/namespaces": {`{"metadata":{"name":"shop","labels":{"istio.io/dataplane-mode":"ambient"}}}`, `{"metadata":{"name":"default","labels":{"istio-injection":"disabled"}}}`},
		"/apis/networking.istio.io/v1beta1/destinationrules": {
			`{"apiVersion":"networking.istio.io/v1beta1","kind":"DestinationRule","metadata":{"name":"d","namespace":"shop"},"spec":{"host":"nobody","subsets":[{"name":"v"}],"newer":1}}`,
			`{"apiVersion":"networking.istio.io/v1beta1","kind":"DestinationRule","metadata":{"name":"canary","namespace":"shop","labels":{"istio.io/rev":"canary"}},"spec":{"host":"nobody"}}`,
		},
	}}
	mesh := connect(t, a)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	in, err := collect.Mesh(t.Context(), mesh, collect.Options{IstioNamespace: "istio-system", Revision: "default"})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d pods in %s, %d KiB kept", pods, time.Since(start).Round(time.Millisecond), kept>>10)
	if a.pages.Load() != pods/500 || a.most.Load() != 500 {
		t.Errorf("%d pages of at most %d", a.pages.Load(), a.most.Load())
	}
	if kept > pods*4096 {
		t.Errorf("%d bytes are kept for %d pods", kept, pods)
	}
	if in.Unread["Node"] == nil || len(in.Unread) != 1 {
		t.Errorf("unread: %v", in.Unread)
	}
	found, err := analysis.Run(t.Context(), analysis.NewSnapshot(in), analyzers.All())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range found {
		lines = append(lines, m.String())
	}
	want := []string{
		"Error [IST0156] (CustomResourceDefinition httproutes.gateway.networking.k8s.io) The Gateway API CRD version v1alpha2 is lower than the minimum version: v1beta1",
		"Warning [IST0133] (DestinationRule shop/d) Schema validation warning: spec.newer: DestinationRule has no such field in this version of the mesh; it is ignored",
		"Warning [IST0174] (DestinationRule shop/d) The host nobody defined in the DestinationRule does not match any services in the mesh.",
		`Warning [IST0176] (CustomResourceDefinition backendtlspolicies.gateway.networking.k8s.io) Gateway API CRD "backendtlspolicies.gateway.networking.k8s.io" is at version "v1alpha2" but Istio requires at least "v1alpha3"; resources of this kind will not be processed. Upgrade the Gateway API CRDs to satisfy the minimum version.`,
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("found\n%s", got)
	}
	for _, r := range in.Resources {
		if p, ok := r.Object.(*corev1.Pod); ok && (len(p.Spec.Containers) != 1 || p.Spec.Containers[0].Env != nil || p.ManagedFields != nil) {
			t.Fatalf("kept of a pod: %+v", p)
		}
	}
}

// TestTimeout: whoever waits in vain is told for what.
func TestTimeout(t *testing.T) {
	t.Parallel()
	mesh := connect(t, &api{stuck: "/api/v1/services"})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := collect.Mesh(ctx, mesh, collect.Options{IstioNamespace: "istio-system"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Service") || !strings.Contains(err.Error(), "--timeout") {
		t.Errorf("error %v", err)
	}
}

// TestUnreachable: an API server that is not there is an error, not an empty mesh.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	mesh, err := reach.Cluster(&rest.Config{Host: "http://127.0.0.1:1"}, "default")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := collect.Mesh(t.Context(), mesh, collect.Options{}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
}
