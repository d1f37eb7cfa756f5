// Package reach gets bytes from proxies and from the control plane, and objects from where they are kept: a cluster, or a sandbox on this
// machine. Whoever asks need not know which.
package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// The ports on which a component answers to its own machine.
const (
	// AdminPort is a proxy's.
	AdminPort = 15000
	// DebugPort and MonitoringPort are the control plane's, and ControlPort that of its log levels.
	DebugPort      = 8080
	MonitoringPort = 15014
	ControlPort    = 9876
)

// ErrNotFound is what is not there.
var ErrNotFound = errors.New("not found")

// Pod is a pod as far as reaching it goes.
type Pod struct {
	Namespace, Name, Node string
	Labels                map[string]string
	// Running is whether its programs may answer, Ready whether they say so.
	Running, Ready bool
}

// String is name.namespace, which commands take.
func (p Pod) String() string { return p.Name + "." + p.Namespace }

// Logs says which part of a pod's log is meant.
type Logs struct {
	// Container is the first if empty; Previous is the one before its last restart.
	Container string
	Previous  bool
	Since     time.Time
	// Most is how many bytes are asked for at most; 0 for all.
	Most int64
}

// Kind is a kind of objects.
type Kind struct {
	Group, Version, Name, Plural string
	// Cluster is whether objects have no namespace.
	Cluster bool
}

// Gateway is the kind of waypoints.
func Gateway() Kind {
	return Kind{Group: "gateway.networking.k8s.io", Version: "v1", Name: "Gateway", Plural: "gateways"}
}

// ConfigMap is the kind of the mesh configuration.
func ConfigMap() Kind { return Kind{Version: "v1", Name: "ConfigMap", Plural: "configmaps"} }

// Namespace is the kind of namespaces.
func Namespace() Kind {
	return Kind{Version: "v1", Name: "Namespace", Plural: "namespaces", Cluster: true}
}

// place is a cluster or a sandbox.
type place interface {
	// pods returns those that a selector selects, of a namespace or all.
	pods(ctx context.Context, namespace, selector string) ([]Pod, error)
	pod(ctx context.Context, namespace, name string) (Pod, error)
	// selector is that of the pods of a workload or service.
	selector(ctx context.Context, kind, namespace, name string) (string, error)
	// dial connects to a port on the loopback address of a pod.
	dial(ctx context.Context, pod Pod, port int) (net.Conn, error)

	// each hands over the objects of a kind, as JSON.
	each(ctx context.Context, kind kube.Kind, namespace string, take func([]byte)) error
	// logs is what a container of a pod has logged.
	logs(ctx context.Context, pod Pod, which Logs) (io.ReadCloser, error)
	list(ctx context.Context, kind Kind, namespace string) ([]unstructured.Unstructured, error)
	get(ctx context.Context, kind Kind, namespace, name string) (*unstructured.Unstructured, error)
	apply(ctx context.Context, kind Kind, object *unstructured.Unstructured) error
	label(ctx context.Context, kind Kind, namespace, name string, labels map[string]*string) error
	remove(ctx context.Context, kind Kind, namespace, name string) error
}

// Mesh is a mesh that runs.
type Mesh struct {
	place place
	// Default is the namespace of names that have none.
	Default string
	// Timeout is how long one answer may take.
	Timeout time.Duration
	// Progress, unless it is nil, is told what is waited for, and that it came. It may be called from several goroutines at a time.
	Progress func(what string) (done func())
}

// begin tells Progress.
func (m *Mesh) begin(format string, args ...any) (done func()) {
	if m.Progress == nil {
		return func() {}
	}
	return m.Progress(fmt.Sprintf(format, args...))
}

// defaultTimeout bounds each answer: a dump of a big proxy through a slow API takes seconds.
const defaultTimeout = 30 * time.Second

// maxAnswer bounds what is held in memory.
const maxAnswer = 1 << 30

func (m *Mesh) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.Timeout <= 0 {
		return context.WithTimeout(ctx, defaultTimeout)
	}
	return context.WithTimeout(ctx, m.Timeout)
}

// late says what was waited for when the time was up.
func late(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer in time: %w", err)
	}
	return err
}

// StatusError is an answer that is none.
type StatusError struct {
	Code int
	Text string
}

func (e *StatusError) Error() string {
	text, _, _ := strings.Cut(strings.TrimSpace(e.Text), "\n")
	return strings.TrimSpace(fmt.Sprintf("%d %s: %s", e.Code, http.StatusText(e.Code), text))
}

// Get asks a pod for a path on a port of its own machine.
func (m *Mesh) Get(ctx context.Context, pod Pod, port int, path string) ([]byte, error) {
	return m.do(ctx, http.MethodGet, pod, port, path, nil)
}

// Post asks a pod to do something.
func (m *Mesh) Post(ctx context.Context, pod Pod, port int, path string) ([]byte, error) {
	return m.do(ctx, http.MethodPost, pod, port, path, nil)
}

// Put gives a pod a value.
func (m *Mesh) Put(ctx context.Context, pod Pod, port int, path string, body []byte) ([]byte, error) {
	return m.do(ctx, http.MethodPut, pod, port, path, body)
}

func (m *Mesh) do(ctx context.Context, method string, pod Pod, port int, path string, body []byte) ([]byte, error) {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	defer m.begin("%s %s on port %d of pod %s", method, path, port, pod)()
	data, err := m.exchange(ctx, method, pod, port, path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s on port %d of pod %s: %w", method, path, port, pod, late(ctx, err))
	}
	return data, nil
}

func (m *Mesh) exchange(ctx context.Context, method string, pod Pod, port int, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://localhost:%d%s", port, path), strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return m.place.dial(ctx, pod, port) },
	}}
	response, err := client.Do(request)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the address of a forwarded port says nothing
	}
	var closed *portError
	if errors.As(err, &closed) {
		err = closed // nor does where in the exchange it was noticed
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, &StatusError{Code: response.StatusCode, Text: string(data)}
	}
	return data, nil
}

// Logs returns what a pod has logged. The caller closes it; ctx bounds the whole time.
func (m *Mesh) Logs(ctx context.Context, pod Pod, which Logs) (io.ReadCloser, error) {
	out, err := m.place.logs(ctx, pod, which)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", pod, late(ctx, err))
	}
	return out, nil
}

// Dial connects to a port on the loopback address of a pod. ctx bounds the connecting.
func (m *Mesh) Dial(ctx context.Context, pod Pod, port int) (net.Conn, error) {
	conn, err := m.place.dial(ctx, pod, port)
	if err != nil {
		return nil, fmt.Errorf("port %d of pod %s: %w", port, pod, late(ctx, err))
	}
	return conn, nil
}

// Kubernetes is the cluster's API; ok is false for a sandbox, which has none.
func (m *Mesh) Kubernetes() (client kubernetes.Interface, ok bool) {
	c, ok := m.place.(*cluster)
	if !ok {
		return nil, false
	}
	return c.client, true
}

// Pods returns the pods that a selector selects and that run, by name. An empty namespace is all.
func (m *Mesh) Pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	defer m.begin("list the pods with %s", selector)()
	all, err := m.place.pods(ctx, namespace, selector)
	if err != nil {
		return nil, fmt.Errorf("list the pods with %s: %w", selector, late(ctx, err))
	}
	all = slices.DeleteFunc(all, func(p Pod) bool { return !p.Running })
	slices.SortFunc(all, func(a, b Pod) int { return strings.Compare(a.String(), b.String()) })
	return all, nil
}

// Istiod returns the control plane's pods, of a revision or, when it is empty, all.
func (m *Mesh) Istiod(ctx context.Context, namespace, revision string) ([]Pod, error) {
	selector := "app=istiod"
	if revision != "" {
		selector += ",istio.io/rev=" + revision
	}
	pods, err := m.Pods(ctx, namespace, selector)
	if err == nil && len(pods) == 0 {
		err = fmt.Errorf("no control plane runs in namespace %q (pods with %s): name its namespace by --istioNamespace", namespace, selector)
	}
	return pods, err
}

// List returns the objects of a kind, of a namespace or all.
func (m *Mesh) List(ctx context.Context, kind Kind, namespace string) ([]unstructured.Unstructured, error) {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	defer m.begin("list %s", kind.Plural)()
	out, err := m.place.list(ctx, kind, namespace)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Plural, late(ctx, err))
	}
	return out, nil
}

// Read returns an object; the error is ErrNotFound when there is none.
func (m *Mesh) Read(ctx context.Context, kind Kind, namespace, name string) (*unstructured.Unstructured, error) {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	out, err := m.place.get(ctx, kind, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind.Name, strings.TrimPrefix(namespace+"/"+name, "/"), late(ctx, err))
	}
	return out, nil
}

// Apply writes an object, as its only author.
func (m *Mesh) Apply(ctx context.Context, kind Kind, object *unstructured.Unstructured) error {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	if err := m.place.apply(ctx, kind, object); err != nil {
		return fmt.Errorf("apply %s %s/%s: %w", kind.Name, object.GetNamespace(), object.GetName(), late(ctx, err))
	}
	return nil
}

// Label sets labels of an object; nil takes one away.
func (m *Mesh) Label(ctx context.Context, kind Kind, namespace, name string, labels map[string]*string) error {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	if err := m.place.label(ctx, kind, namespace, name, labels); err != nil {
		return fmt.Errorf("label %s %s: %w", kind.Name, name, late(ctx, err))
	}
	return nil
}

// Delete deletes an object; the error is ErrNotFound when there is none.
func (m *Mesh) Delete(ctx context.Context, kind Kind, namespace, name string) error {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	if err := m.place.remove(ctx, kind, namespace, name); err != nil {
		return fmt.Errorf("delete %s %s/%s: %w", kind.Name, namespace, name, late(ctx, err))
	}
	return nil
}
