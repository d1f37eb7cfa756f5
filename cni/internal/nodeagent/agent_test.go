package nodeagent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/cni/internal/discover"
	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
	"github.com/isthmus-mesh/isthmus/cni/internal/zds"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/nft"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

func TestWanted(t *testing.T) {
	pod := func(edit func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
		if edit != nil {
			edit(p)
		}
		return p
	}
	label := func(value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels = map[string]string{LabelDataplaneMode: value} }
	}
	in, out := map[string]string{LabelDataplaneMode: ModeAmbient}, map[string]string{}
	for name, tt := range map[string]struct {
		pod       *corev1.Pod
		namespace map[string]string
		want      bool
	}{
		"namespace in":          {pod(nil), in, true},
		"namespace out":         {pod(nil), out, false},
		"pod in":                {pod(label(ModeAmbient)), out, true},
		"pod out":               {pod(label(ModeNone)), in, false},
		"pod's label is odd":    {pod(label("sidecar")), in, false},
		"host network":          {pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), in, false},
		"has ended":             {pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), in, false},
		"has failed":            {pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), in, false},
		"has a sidecar":         {pod(func(p *corev1.Pod) { p.Annotations = map[string]string{annotationSidecar: "{}"} }), in, false},
		"namespace is excluded": {pod(func(p *corev1.Pod) { p.Namespace = "kube-system" }), in, false},
	} {
		if got := (Selection{}).wanted(tt.pod, tt.namespace, func(ns string) bool { return ns == "kube-system" }); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// world is what the agent acts on, without a cluster and a ztunnel.
type world struct {
	mu          sync.Mutex // guards the rest
	away        bool       // the proxy
	served      map[string]bool
	netns       map[string]*os.File // what the proxy's snapshot has
	closed      []string            // pods whose network namespace was closed while the snapshot had it
	probed      []netip.Addr
	annotations map[string]string
	history     []string // every annotation that was written
	unanswered  error    // what the tunnel's probe says
	found       map[string]discover.Found
}

// Find implements Finder.
func (w *world) Find(pods []discover.Wanted) (map[string]discover.Found, map[string]error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	problems := map[string]error{}
	for _, p := range pods {
		if _, ok := w.found[p.UID]; !ok {
			problems[p.UID] = discover.ErrNoProcess
		}
	}
	return maps.Clone(w.found), problems
}

func (w *world) probe(context.Context, *os.File, netip.Addr, string, string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unanswered
}

func (w *world) Annotate(_ context.Context, pod *corev1.Pod, _ string, value *string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, text := pod.Namespace+"/"+pod.Name, ""
	if value != nil {
		text = *value
	}
	w.history = append(w.history, text)
	if w.annotations[name] = text; text == "" {
		delete(w.annotations, name)
	}
	return nil
}

func (w *world) annotation(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.annotations[name]
}

// proxy and host are the world's other faces.
type (
	proxy struct{ *world }
	host  struct{ *world }
)

func (p proxy) Add(pod zds.Pod) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookLocked(pod.UID)
	p.netns[pod.UID] = pod.Netns
	if p.away {
		return zds.ErrNoProxy
	}
	p.served[pod.UID] = true
	return nil
}

func (p proxy) Del(uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookLocked(uid)
	delete(p.netns, uid)
	delete(p.served, uid)
	return nil
}

// lookLocked notes a network namespace that did not stay open for as long as the proxy's snapshot has it.
func (p proxy) lookLocked(uid string) {
	if file := p.netns[uid]; file != nil {
		if _, err := file.Stat(); err != nil {
			p.closed = append(p.closed, uid)
		}
	}
}

func (h host) Add(ips []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probed = append(h.probed, ips...)
	return nil
}

func (h host) Remove(ips []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probed = slices.DeleteFunc(h.probed, func(ip netip.Addr) bool { return slices.Contains(ips, ip) })
	return nil
}

type bed struct {
	t     *testing.T
	world *world
	agent *Agent
	ns    *os.File
	path  string
	peer  *os.File
	state string
	stop  func()
	// early makes the back end of pods that start; nil: there is none. before are those whose rules may be left.
	early  func() redirect.Early
	before []redirect.Backend
	// annotated are annotations of the pod, besides that of its redirection. logged is what the agent says.
	annotated map[string]string
	logged    logged
}

// logged keeps what is written by many.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, state: filepath.Join(t.TempDir(), "pods.json"), world: &world{served: map[string]bool{}, netns: map[string]*os.File{}, annotations: map[string]string{}}}
	b.ns, b.peer = nettest.New(t), nettest.New(t)
	nettest.Link(t, b.ns, b.peer, []string{"10.5.0.2/24"}, []string{"10.5.0.1/24"})
	b.path = "/proc/self/fd/" + itoa(b.ns.Fd())
	b.start()
	return b
}

func itoa(fd uintptr) string {
	text, _ := json.Marshal(fd)
	return string(text)
}

// start runs an agent on what the one before has saved.
func (b *bed) start() {
	b.t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	chosen := redirect.Chosen{Backend: nft.Backend{}, Name: redirect.NFT, Before: b.before}
	if b.early != nil {
		chosen.Early, chosen.EarlyName = b.early(), redirect.SKLookup
		chosen.Before = append(chosen.Before, chosen.Early)
	}
	b.agent, err = New(ctx, Config{
		Node: "node-1", Redirect: plan.DefaultConfig(), Excluded: []string{"kube-system"}, StateFile: b.state, Proxy: proxy{b.world}, Host: host{b.world},
		Annotator: b.world, Log: slog.New(slog.NewTextHandler(&b.logged, nil)), Metrics: metrics, Backend: chosen, Finder: b.world, Probe: b.world.probe,
		RootNamespace: "istio-system",
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan struct{})
	agent := b.agent
	go func() {
		defer close(ended)
		agent.Run(ctx)
	}()
	b.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		for _, uid := range agent.uids() {
			r, _, _ := agent.find(uid)
			r.netns.Close()
		}
	})
	b.t.Cleanup(b.stop)
}

// objects tells the agent of its pod, and of the namespace's mode.
func (b *bed) objects(mode string) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{LabelDataplaneMode: mode}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}, Spec: corev1.PodSpec{NodeName: "node-1"}}
	pod.Annotations = maps.Clone(b.annotated)
	if value := b.world.annotation("shop/web"); value != "" {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[AnnotationRedirection] = value
	}
	b.agent.Apply(kube.NamespaceGVK(), []kube.Object{ns}, nil)
	b.agent.Apply(kube.PodGVK(), []kube.Object{pod}, nil)
}

// ask sends a request as the plugin does.
func (b *bed) ask(path string) *httptest.ResponseRecorder {
	b.t.Helper()
	body, err := json.Marshal(pluginapi.Request{Netns: b.path, Ifname: "eth0", IPs: []string{"10.5.0.2"}, ContainerID: "c1", PodName: "web", PodNamespace: "shop", PodUID: "u1"})
	if err != nil {
		b.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	b.agent.Handler().ServeHTTP(w, httptest.NewRequestWithContext(b.t.Context(), http.MethodPost, path, bytes.NewReader(body)))
	return w
}

// redirected tells whether the kernel has the rules.
func (b *bed) redirected() bool {
	b.t.Helper()
	differences, err := nft.Backend{}.Inspect(b.ns, plan.Plan(plan.Pod{}, plan.DefaultConfig()))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(differences) == 0
}

func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	wait.Until(b.t, 30*time.Second, what, ok, func() string { return fmt.Sprintf("%+v", b.agent.Statuses()) })
}

func (b *bed) served() bool {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	return b.world.served["u1"]
}

func TestAPodIsEnrolledBeforeItStarts(t *testing.T) {
	b := newBed(t)
	b.agent.Synced()
	asked := make(chan *httptest.ResponseRecorder)
	go func() { asked <- b.ask(pluginapi.PathAdd) }()
	b.eventually("asked", func() bool { return b.agent.waiting.Load() > 0 })
	b.objects(ModeAmbient) // the object comes after the plugin has asked
	w := <-asked
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "true") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if !b.redirected() || !b.served() || b.world.annotation("shop/web") != RedirectionEnabled || len(b.world.probed) != 1 {
		t.Errorf("redirected %t, served %t, annotation %q, probed %v", b.redirected(), b.served(), b.world.annotation("shop/web"), b.world.probed)
	}
	if w := b.ask(pluginapi.PathDel); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if b.served() || len(b.world.probed) != 0 || len(b.agent.Statuses()) != 0 {
		t.Errorf("after its end: %+v, probed %v", b.agent.Statuses(), b.world.probed)
	}
}

func TestAPodDoesNotStartWithoutItsProxy(t *testing.T) {
	b := newBed(t)
	b.world.away = true
	b.objects(ModeAmbient)
	b.agent.Synced()
	if w := b.ask(pluginapi.PathAdd); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "no ztunnel is connected") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(b.agent.Statuses()) != 0 {
		t.Error("a pod that did not start is remembered")
	}
}

func TestARunningPodIsEnrolledAndUnEnrolled(t *testing.T) {
	b := newBed(t)
	b.objects(ModeNone)
	b.agent.Synced()
	if w := b.ask(pluginapi.PathAdd); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "true") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	nettest.Serve(nettest.Listen(t, b.ns, "0.0.0.0:8080"), "app")
	open := nettest.Dial(t, b.peer, "tcp", "10.5.0.2:8080", nettest.Socket{})
	if _, err := nettest.Read(open); err != nil {
		t.Fatal(err)
	}
	talk := func(when string) {
		t.Helper()
		if got, err := nettest.Exchange(open, "still there\n"); err != nil || !strings.Contains(got, "still there") {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	b.objects(ModeAmbient)
	b.eventually("enrolled", func() bool { return b.world.annotation("shop/web") == RedirectionEnabled })
	if !b.redirected() || !b.served() {
		t.Errorf("redirected %t, served %t", b.redirected(), b.served())
	}
	talk("after enrolment")
	b.objects(ModeNone)
	b.eventually("un-enrolled", func() bool { return b.world.annotation("shop/web") == "" && !b.served() })
	if b.redirected() {
		t.Error("new connections are still redirected")
	}
	talk("after un-enrolment")
}

func TestAPendingPodIsEnrolledWhenItsProxyComes(t *testing.T) {
	b := newBed(t)
	b.objects(ModeNone)
	b.agent.Synced()
	b.ask(pluginapi.PathAdd)
	b.world.mu.Lock()
	b.world.away = true
	b.world.mu.Unlock()
	b.objects(ModeAmbient)
	b.eventually("pending", func() bool { return b.world.annotation("shop/web") == RedirectionPending })
	if b.redirected() {
		t.Error("redirected to a proxy that is not there")
	}
	b.world.mu.Lock()
	b.world.away = false
	b.world.mu.Unlock()
	b.eventually("enrolled", func() bool { return b.world.annotation("shop/web") == RedirectionEnabled && b.redirected() })
}

func TestARestartedAgentKnowsItsPods(t *testing.T) {
	b := newBed(t)
	b.objects(ModeAmbient)
	b.agent.Synced()
	if w := b.ask(pluginapi.PathAdd); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	b.stop()
	if !b.redirected() || b.world.annotation("shop/web") != RedirectionEnabled {
		t.Error("the end of the agent took the pod out of the mesh")
	}
	b.world.mu.Lock()
	b.world.served, b.world.netns = map[string]bool{}, map[string]*os.File{}
	b.world.away = true // the proxy comes back later than the agent
	b.world.mu.Unlock()
	b.start()
	b.objects(ModeAmbient)
	b.agent.Synced()
	b.eventually("tried", func() bool { return b.agent.Statuses()[0].Problem != "" })
	if got := b.world.annotation("shop/web"); got != RedirectionEnabled {
		t.Errorf("while the proxy is on its way, the pod's peers are told %q", got)
	}
	b.world.mu.Lock()
	b.world.away = false
	b.world.mu.Unlock()
	b.eventually("handed to the proxy again", b.served)
	b.agent.Apply(kube.PodGVK(), nil, []types.NamespacedName{{Namespace: "shop", Name: "web"}})
	if !b.redirected() {
		t.Error("the object's end, without the plugin's DEL, changed the pod")
	}
}

func TestBrokenRequestsAndStateAreRefused(t *testing.T) {
	b := newBed(t)
	b.agent.Synced()
	w := httptest.NewRecorder()
	b.agent.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, pluginapi.PathAdd, strings.NewReader("{")))
	if w.Code != http.StatusBadRequest {
		t.Errorf("half of a request: %d", w.Code)
	}
	if err := os.WriteFile(b.state, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSaved(b.state); err == nil || !strings.Contains(err.Error(), b.state) {
		t.Errorf("broken state: %v", err)
	}
	if _, err := newRecord(savedPod{Netns: "/proc/self/exe"}); err == nil {
		t.Error("a file that is no network namespace was taken")
	}
	if _, err := newRecord(savedPod{Netns: b.path, Identity: struct{ Dev, Ino uint64 }{1, 1}}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("another namespace at the same path: %v", err)
	}
}
