package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// village is a place with a few pods; all its ports lead to one server.
type village struct {
	all       []Pod
	selectors map[string]string // by kind/namespace/name
	server    string
	dialled   []string
}

func (v *village) pods(_ context.Context, namespace, selector string) ([]Pod, error) {
	meant, err := labels.Parse(selector)
	if err != nil {
		return nil, err
	}
	var out []Pod
	for _, p := range v.all {
		if (namespace == "" || namespace == p.Namespace) && meant.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (v *village) pod(ctx context.Context, namespace, name string) (Pod, error) {
	pods, err := v.pods(ctx, namespace, "")
	for _, p := range pods {
		if p.Name == name {
			return p, err
		}
	}
	return Pod{}, ErrNotFound
}

func (v *village) selector(_ context.Context, kind, namespace, name string) (string, error) {
	s, ok := v.selectors[kind+"/"+namespace+"/"+name]
	if !ok {
		return "", ErrNotFound
	}
	return s, nil
}

func (v *village) dial(ctx context.Context, pod Pod, port int) (net.Conn, error) {
	v.dialled = append(v.dialled, fmt.Sprintf("%s:%d", pod, port))
	return (&net.Dialer{}).DialContext(ctx, "tcp", v.server)
}

func (v *village) list(context.Context, Kind, string) ([]unstructured.Unstructured, error) {
	return nil, ErrNotFound
}

func (v *village) each(context.Context, kube.Kind, string, func([]byte)) error { return ErrNotFound }

func (v *village) logs(context.Context, Pod, Logs) (io.ReadCloser, error) { return nil, ErrNotFound }

func (v *village) get(context.Context, Kind, string, string) (*unstructured.Unstructured, error) {
	return nil, ErrNotFound
}

func (v *village) apply(context.Context, Kind, *unstructured.Unstructured) error { return ErrNotFound }

func (v *village) label(context.Context, Kind, string, string, map[string]*string) error {
	return ErrNotFound
}

func (v *village) remove(context.Context, Kind, string, string) error { return ErrNotFound }

func newVillage() *village {
	pod := func(namespace, name, app string, running, ready bool) Pod {
		return Pod{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}, Running: running, Ready: ready}
	}
	gateway := pod("default", "waypoint-6f-x", "waypoint", true, true)
	gateway.Labels = map[string]string{"gateway.networking.k8s.io/gateway-name": "waypoint"}
	return &village{
		all: []Pod{
			pod("default", "reviews-v1-77cd98876-aaaaa", "reviews", true, false), pod("default", "reviews-v1-77cd98876-bbbbb", "reviews", true, true),
			pod("default", "old-1", "old", false, false), pod("other", "dotted.name", "dotted", true, true), gateway,
			pod("istio-system", "istiod-1", "istiod", true, true),
		},
		selectors: map[string]string{
			"deployment/default/reviews-v1": "app=reviews", "service/default/reviews": "app=reviews", "deployment/default/old": "app=old",
			"daemonset/other/dotted": "app=dotted",
		},
	}
}

// TestFind: the forms in which people name pods, and what they are told when there is none.
func TestFind(t *testing.T) {
	t.Parallel()
	m := &Mesh{place: newVillage(), Default: "default"}
	for _, c := range []struct{ name, want, problem string }{
		{"reviews-v1-77cd98876-aaaaa", "reviews-v1-77cd98876-aaaaa.default", ""},
		{"reviews-v1-77cd98876-aaaaa.default", "reviews-v1-77cd98876-aaaaa.default", ""},
		{"pod/dotted.name.other", "dotted.name.other", ""},
		{"deploy/reviews-v1", "reviews-v1-77cd98876-bbbbb.default", ""}, // the one that is ready
		{"deployment/reviews-v1.default", "reviews-v1-77cd98876-bbbbb.default", ""},
		{"deployments/reviews-v1", "reviews-v1-77cd98876-bbbbb.default", ""},
		{"svc/reviews", "reviews-v1-77cd98876-bbbbb.default", ""},
		{"ds/dotted.other", "dotted.name.other", ""},
		{"gateway/waypoint", "waypoint-6f-x.default", ""},
		{"gateway/none", "", "gateway none in namespace default has no pod that runs"},
		{"deploy/old", "", "has no pod that runs"},
		{"old-1", "", "does not run"},
		{"deploy/none", "", "there is no deployment none in namespace default"},
		{"reviews-v1", "", "did you mean deploy/reviews-v1.default?"},
		{"reviews-v1-77cd98876-ccccc", "", "did you mean reviews-v1-77cd98876-aaaaa.default?"},
		{"nothing.nowhere", "", "there is no pod nothing in namespace nowhere"},
		{"configmap/x", "", "of a configmap no pods are known"},
		{"deploy/", "", "names no pod"},
		{"deploy/x.", "", "names no pod"},
	} {
		pod, err := m.Find(t.Context(), c.name)
		switch {
		case c.problem == "" && (err != nil || pod.String() != c.want):
			t.Errorf("%s: %s, %v; want %s", c.name, pod, err, c.want)
		case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.problem)
		}
	}
}

// TestIstiod: where there is no control plane, that is said.
func TestIstiod(t *testing.T) {
	t.Parallel()
	m := &Mesh{place: newVillage(), Default: "default"}
	if pods, err := m.Istiod(t.Context(), "istio-system", ""); err != nil || len(pods) != 1 {
		t.Errorf("%v, %v", pods, err)
	}
	if _, err := m.Istiod(t.Context(), "istio-system", "canary"); err == nil || !strings.Contains(err.Error(), "istio.io/rev=canary") {
		t.Errorf("error %v", err)
	}
}

// TestAnswers: answers, refusals, and what is said when none comes.
func TestAnswers(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-hang
		case "/wrong":
			http.Error(w, "because\nof it", http.StatusBadRequest)
		default:
			fmt.Fprint(w, r.Method, " ", r.URL.RequestURI(), " ", r.Host)
		}
	}))
	defer server.Close()
	defer close(hang)
	v := newVillage()
	v.server = server.Listener.Addr().String()
	m := &Mesh{place: v}
	pod := v.all[0]

	if got, err := m.Get(t.Context(), pod, 15000, "/config_dump?include_eds"); err != nil || string(got) != "GET /config_dump?include_eds localhost:15000" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := m.Post(t.Context(), pod, 15000, "/logging"); err != nil || !strings.HasPrefix(string(got), "POST /logging ") {
		t.Errorf("%q, %v", got, err)
	}
	_, err := m.Get(t.Context(), pod, 15000, "/wrong")
	var status *StatusError
	if !errors.As(err, &status) || status.Code != http.StatusBadRequest || !strings.HasSuffix(err.Error(), "400 Bad Request: because") {
		t.Errorf("error %v", err)
	}
	hasty := &Mesh{place: v, Timeout: 2 * time.Second}
	if _, err = hasty.Get(t.Context(), pod, 15000, "/hang"); err == nil || !strings.Contains(err.Error(), "GET /hang on port 15000 of pod reviews-v1-77cd98876-aaaaa.default: no answer in time") {
		t.Errorf("error %v", err)
	}
	v.server = "127.0.0.1:1"
	if _, err = m.Get(t.Context(), pod, 15000, "/"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
}

// TestRefusal: what the API says about a port that is closed is shortened.
func TestRefusal(t *testing.T) {
	t.Parallel()
	long := `error forwarding port 1 to pod 77, uid : failed to execute portforward in network namespace "/var/run/netns/x": dial tcp4 127.0.0.1:1: connect: connection refused`
	if err := refusal(long); !errors.Is(err, errRefused) {
		t.Errorf("%v", err)
	}
	if err := refusal("something else\n"); err.Error() != "something else" {
		t.Errorf("%v", err)
	}
}

// TestForward: connections to a port of this machine reach the pod, until it ends.
func TestForward(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the pod") }))
	defer server.Close()
	v := newVillage()
	v.server = server.Listener.Addr().String()
	m := &Mesh{place: v, Timeout: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan int, 1), make(chan error, 1)
	go func() {
		done <- m.Forward(ctx, Pod{Namespace: "n", Name: "p"}, 80, "127.0.0.1:0", func(port int) { ready <- port }, func(err error) { t.Error(err) })
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", <-ready))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || string(body) != "the pod" {
		t.Errorf("%q, %v", body, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
