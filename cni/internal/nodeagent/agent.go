package nodeagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/cni/internal/zds"
	"github.com/isthmus-mesh/isthmus/cni/redirect/nft"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

const (
	// retryEvery is the pause between attempts to bring pods to where they should be.
	retryEvery = 2 * time.Second
	// podPatience is how long an ADD waits for the pod's object.
	podPatience = 10 * time.Second
	// convergence is how long peers may take to hear that a pod takes no tunnels any more, before its proxy stops taking them.
	convergence = time.Second
)

// Proxy is the node's proxy.
type Proxy interface {
	Add(zds.Pod) error
	Del(uid string) error
}

// HostRules are the node's own.
type HostRules interface {
	Add(pod []netip.Addr) error
	Remove(pod []netip.Addr) error
}

// Annotator writes an annotation of a pod; a nil value takes it away.
type Annotator interface {
	Annotate(ctx context.Context, namespace, name, key string, value *string) error
}

// Config of an Agent.
type Config struct {
	Node      string
	Redirect  plan.Config
	Excluded  []string // namespaces
	StateFile string
	Proxy     Proxy
	Host      HostRules
	Annotator Annotator
	Log       *slog.Logger
	Metrics   *Metrics
}

// Agent enrols pods. It implements kube.Sink for pods and namespaces.
type Agent struct {
	cfg  Config
	ctx  context.Context //nolint:containedctx // ends what runs in the background
	work sync.WaitGroup
	host sync.Mutex // HostRules are changed by one at a time

	mu         sync.Mutex // guards what follows
	pods       map[types.NamespacedName]*corev1.Pod
	namespaces map[string]map[string]string // labels
	records    map[string]*record           // by uid
	arrived    chan struct{}                // closed and replaced when objects change
	synced     chan struct{}                // closed when all objects of the start are known
}

// New returns an agent that knows what an earlier one has saved.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	a := &Agent{
		cfg: cfg, ctx: ctx, pods: map[types.NamespacedName]*corev1.Pod{}, namespaces: map[string]map[string]string{},
		records: map[string]*record{}, arrived: make(chan struct{}), synced: make(chan struct{}),
	}
	saved, err := loadSaved(cfg.StateFile)
	if err != nil {
		// Pods that run keep their rules; only those that are labelled later are out of reach until they restart.
		cfg.Log.Error("pods that already run cannot be enrolled", "error", err)
	}
	for _, s := range saved {
		r, err := newRecord(s)
		if err != nil {
			cfg.Log.Info("a pod of before is gone", "pod", s.Namespace+"/"+s.Name, "reason", err)
			continue
		}
		a.records[s.UID] = r
	}
	return a, nil
}

// Apply implements kube.Sink.
func (a *Agent) Apply(gvk schema.GroupVersionKind, upserts []kube.Object, deletes []types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch gvk {
	case kube.PodGVK():
		for _, o := range upserts {
			if pod, ok := o.(*corev1.Pod); ok && (pod.Spec.NodeName == a.cfg.Node || pod.Spec.NodeName == "") {
				a.pods[kube.NameOf(o)] = pod
				a.wakeLocked(string(pod.UID))
			}
		}
		for _, name := range deletes {
			if pod, ok := a.pods[name]; ok {
				delete(a.pods, name)
				a.wakeLocked(string(pod.UID))
			}
		}
	case kube.NamespaceGVK():
		for _, o := range upserts {
			a.namespaces[o.GetName()] = o.GetLabels()
			a.wakeNamespaceLocked(o.GetName())
		}
		for _, name := range deletes {
			delete(a.namespaces, name.Name)
			a.wakeNamespaceLocked(name.Name)
		}
	default:
		return
	}
	close(a.arrived)
	a.arrived = make(chan struct{})
}

// Synced implements kube.Sink.
func (a *Agent) Synced() { close(a.synced) }

// WaitSynced returns when all objects of the start are known.
func (a *Agent) WaitSynced(ctx context.Context) error {
	select {
	case <-a.synced:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Agent) wakeNamespaceLocked(namespace string) {
	for uid, r := range a.records {
		if r.saved.Namespace == namespace {
			a.wakeLocked(uid)
		}
	}
}

func (a *Agent) wakeLocked(uid string) {
	if _, ok := a.records[uid]; !ok || a.ctx.Err() != nil {
		return
	}
	select {
	case <-a.synced:
		a.work.Go(func() { a.reconcile(uid) })
	default: // before, deciding on half of the objects would un-enrol pods
	}
}

// Run brings the saved pods to where they should be, keeps trying what failed, and returns when ctx has ended and nothing
// is under way.
func (a *Agent) Run(ctx context.Context) {
	defer a.work.Wait()
	if a.WaitSynced(ctx) != nil {
		return
	}
	ticker := time.NewTicker(retryEvery)
	defer ticker.Stop()
	for {
		a.Restore() //nolint:contextcheck // the agent has its own
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Restore brings all pods that have a network to where they should be, once. Before the proxies are served, it fills the
// snapshot: a proxy stops what a snapshot does not name.
func (a *Agent) Restore() {
	var all sync.WaitGroup
	for _, uid := range a.uids() {
		all.Go(func() { a.reconcile(uid) })
	}
	all.Wait()
}

func (a *Agent) uids() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for uid := range a.records {
		out = append(out, uid)
	}
	slices.Sort(out)
	return out
}

// find returns a record and its pod's object; the object is nil when there is none of this uid (any more).
func (a *Agent) find(uid string) (r *record, pod *corev1.Pod, want bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.records[uid]
	if !ok {
		return nil, nil, false
	}
	pod, ok = a.pods[types.NamespacedName{Namespace: r.saved.Namespace, Name: r.saved.Name}]
	if !ok || string(pod.UID) != uid {
		return r, nil, false
	}
	return r, pod, wanted(pod, a.namespaces[pod.Namespace], a.excluded)
}

// EnrolledAddresses are those of the pods that belong into the mesh.
func (a *Agent) EnrolledAddresses() []netip.Addr {
	var out []netip.Addr
	for _, uid := range a.uids() {
		if r, _, want := a.find(uid); want {
			out = append(out, r.saved.IPs...)
		}
	}
	return out
}

func (a *Agent) excluded(namespace string) bool { return slices.Contains(a.cfg.Excluded, namespace) }

// reconcile brings one pod to where it should be. Failures are logged once, and tried again by Run.
func (a *Agent) reconcile(uid string) {
	r, _, _ := a.find(uid)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Asked again: it may have changed while another one held the record.
	_, pod, want := a.find(uid)
	if r.removed || pod == nil {
		return // the plugin's DEL is about to come, or has
	}
	var err error
	switch {
	case want && !r.enrolled:
		a.cfg.Metrics.events.Inc()
		err = a.enrol(r, pod)
	case !want && (r.enrolled || r.marked != "" || pod.Annotations[AnnotationRedirection] != ""):
		a.cfg.Metrics.events.Inc()
		err = a.unenrol(r, pod)
	}
	a.note(r, pod, err)
}

func (a *Agent) note(r *record, pod *corev1.Pod, err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if failure != "" && failure != r.failure {
		a.cfg.Log.Warn("pod not where it should be; trying again", "pod", quoted(pod), "error", err)
	}
	r.failure = failure
}

// enrol puts a running pod into the mesh. The proxy listens before anything is redirected to it. The record is locked.
func (a *Agent) enrol(r *record, pod *corev1.Pod) error {
	if err := a.cfg.Proxy.Add(zds.Pod{
		UID: r.saved.UID, Name: pod.Name, Namespace: pod.Namespace, ServiceAccount: accountOf(pod), Netns: r.netns,
	}); err != nil {
		if pod.Annotations[AnnotationRedirection] == RedirectionEnabled {
			return err // the redirection of before is in place, and waits for the proxy
		}
		return errors.Join(err, a.mark(r, pod, RedirectionPending))
	}
	if err := a.changeHost(HostRules.Add, r); err != nil {
		return err
	}
	rules := plan.Plan(plan.PodFromAnnotations(pod.Annotations), a.cfg.Redirect)
	if err := (nft.Backend{}).Apply(r.netns, rules); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	r.enrolled = true
	a.cfg.Log.Info("pod enrolled", "pod", quoted(pod), "uid", r.saved.UID)
	return a.mark(r, pod, RedirectionEnabled)
}

// unenrol takes a running pod out of the mesh; its open connections go on. The record is locked.
func (a *Agent) unenrol(r *record, pod *corev1.Pod) error {
	if err := (nft.Backend{}).Remove(r.netns); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	if err := a.mark(r, pod, ""); err != nil {
		return err
	}
	if err := a.changeHost(HostRules.Remove, r); err != nil {
		return err
	}
	if r.enrolled {
		select { // peers that have not heard yet still tunnel to it
		case <-time.After(convergence):
		case <-a.ctx.Done():
		}
	}
	if err := a.cfg.Proxy.Del(r.saved.UID); err != nil {
		a.cfg.Log.Warn("ztunnel was not told that a pod has left", "pod", quoted(pod), "error", err)
	}
	r.enrolled = false
	a.cfg.Log.Info("pod un-enrolled", "pod", quoted(pod), "uid", r.saved.UID)
	return nil
}

func (a *Agent) changeHost(change func(HostRules, []netip.Addr) error, r *record) error {
	a.host.Lock()
	defer a.host.Unlock()
	return change(a.cfg.Host, r.saved.IPs)
}

// mark writes the annotation that tells the control plane how to reach the pod; "" takes it away.
func (a *Agent) mark(r *record, pod *corev1.Pod, value string) error {
	if r.marked == value && pod.Annotations[AnnotationRedirection] == value {
		return nil
	}
	ctx, cancel := context.WithTimeout(a.ctx, podPatience)
	defer cancel()
	var to *string
	if value != "" {
		to = &value
	}
	if err := a.cfg.Annotator.Annotate(ctx, pod.Namespace, pod.Name, AnnotationRedirection, to); err != nil {
		return fmt.Errorf("annotate: %w", err)
	}
	r.marked = value
	return nil
}

// Taken records what a proxy said of a pod in its snapshot.
func (a *Agent) Taken(uid string, err error) {
	if err == nil {
		return
	}
	a.work.Go(func() {
		if r, pod, _ := a.find(uid); r != nil && pod != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.enrolled = false // Run tries again
			a.note(r, pod, err)
		}
	})
}

// Status is one pod's, for people.
type Status struct {
	Pod      string `json:"pod"`
	UID      string `json:"uid"`
	Wanted   bool   `json:"wanted"`
	Enrolled bool   `json:"enrolled"`
	Problem  string `json:"problem,omitempty"`
}

// Statuses lists the pods of the node that have a network, by name.
func (a *Agent) Statuses() []Status {
	out := []Status{}
	for _, uid := range a.uids() {
		r, _, want := a.find(uid)
		if r == nil {
			continue
		}
		r.mu.Lock()
		out = append(out, Status{r.saved.Namespace + "/" + r.saved.Name, uid, want, r.enrolled, r.failure})
		r.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Pod, b.Pod) })
	return out
}

// Metrics of the agent.
type Metrics struct {
	events    prometheus.Counter
	requests  *prometheus.CounterVec
	Connected prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		events:    prometheus.NewCounter(prometheus.CounterOpts{Name: "nodeagent_reconcile_events_total", Help: "Pods that were enrolled or taken out, or tried to."}),
		requests:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_cni_plugin_requests_total", Help: "Requests of the CNI plugin."}, []string{"command", "result"}),
		Connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ztunnel_connected", Help: "Node proxies connected."}),
	}
	for _, c := range []prometheus.Collector{m.events, m.requests, m.Connected} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register the agent's metrics: %w", err)
		}
	}
	return m, nil
}
