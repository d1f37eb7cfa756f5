package nodeagent

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/cni/internal/discover"
	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/sockets"
	"github.com/isthmus-mesh/isthmus/cni/internal/zds"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

const (
	// retryEvery is the pause between attempts to bring pods to where they should be.
	retryEvery = 2 * time.Second
	// inspectEvery is how often the rules of enrolled pods are compared with what was planned.
	inspectEvery = time.Minute
	// coalesce is how long changes are gathered before they are looked at.
	coalesce = 50 * time.Millisecond
	// podPatience is how long an ADD waits for the pod's object.
	podPatience = 10 * time.Second
	// convergence is how long peers may take to hear that a pod takes no tunnels any more, before its proxy stops taking them.
	convergence = time.Second
	// orphanPatience is how long the record of a pod without an object waits for the plugin's DEL.
	orphanPatience = time.Minute
	// echo is how long an annotation may take to come back through the source.
	echo = 10 * time.Second
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
	Annotate(ctx context.Context, pod *corev1.Pod, key string, value *string) error
}

// Finder finds the network namespaces of pods that already run.
type Finder interface {
	Find(pods []discover.Wanted) (map[string]discover.Found, map[string]error)
}

// Config of an Agent.
type Config struct {
	Node string
	// Disabled wants no pod in the mesh.
	Disabled bool
	// Selection says which pods belong into the mesh, Excluded which namespaces never do.
	Selection Selection
	Excluded  []string
	// RootNamespace has the policies of the whole mesh.
	RootNamespace string
	// Redirect is planned, Backend applies it.
	Redirect plan.Config
	Backend  redirect.Chosen
	// KeepRules leaves the rules of pods alone that an earlier agent has enrolled.
	KeepRules bool
	StateFile string
	// Proc is the node's procfs; it matters when the agent sees another one.
	Proc string
	// HostNetns is never a pod's.
	HostNetns netns.ID
	Proxy     Proxy
	Host      HostRules
	Annotator Annotator
	// Finder may be nil: then only pods that the plugin has told of are known.
	Finder Finder
	// Probe asks the tunnel of a running pod who it is, before traffic is redirected to it. Nil asks nobody.
	Probe   func(ctx context.Context, ns *os.File, ip netip.Addr, namespace, account string) error
	Log     *slog.Logger
	Metrics *Metrics
}

// Agent enrols pods. It implements kube.Sink for pods, namespaces and PeerAuthentications.
type Agent struct {
	cfg  Config
	ctx  context.Context //nolint:containedctx // ends what runs in the background
	work sync.WaitGroup
	host sync.Mutex    // HostRules are changed by one at a time
	kick chan struct{} // asks Run to look at once
	// waiting is the number of ADDs that wait for their pod's object.
	waiting atomic.Int32

	mu         sync.Mutex // guards what follows
	pods       map[types.NamespacedName]*corev1.Pod
	namespaces map[string]map[string]string // labels
	policies   map[types.NamespacedName]*securityv1.PeerAuthentication
	records    map[string]*record              // by uid
	older      map[string][]sockets.Connection // by uid: those that were there before the pod was enrolled
	missing    map[string]string               // by uid: why a pod that should have a record has none
	arrived    chan struct{}                   // closed and replaced when objects change
	synced     chan struct{}                   // closed when all objects of the start are known
}

// New returns an agent that knows what an earlier one has saved.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	a := &Agent{
		cfg: cfg, ctx: ctx, kick: make(chan struct{}, 1),
		pods: map[types.NamespacedName]*corev1.Pod{}, namespaces: map[string]map[string]string{},
		policies: map[types.NamespacedName]*securityv1.PeerAuthentication{}, records: map[string]*record{},
		older: map[string][]sockets.Connection{}, missing: map[string]string{},
		arrived: make(chan struct{}), synced: make(chan struct{}),
	}
	saved, err := loadSaved(cfg.StateFile)
	if err != nil {
		// Pods that run keep their rules, and are found again where there is a Finder.
		cfg.Log.Error("the pods that an earlier agent knew are not known", "error", err)
	}
	for _, s := range saved {
		r, err := newRecord(s)
		if err != nil {
			cfg.Log.Info("a pod of before is gone", "pod", s.Namespace+"/"+s.Name, "reason", err)
			continue
		}
		r.early.Store(cfg.Backend.Early != nil && s.Backend == cfg.Backend.EarlyName)
		r.foreign.Store(!r.early.Load() && s.Backend != cfg.Backend.Name)
		a.records[s.UID] = r
		if len(s.Older) > 0 {
			a.older[s.UID] = s.Older
		}
	}
	return a, nil
}

// Apply implements kube.Sink.
func (a *Agent) Apply(gvk schema.GroupVersionKind, upserts []kube.Object, deletes []types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch gvk {
	case kube.PodGVK():
		a.applyPodsLocked(upserts, deletes)
	case kube.NamespaceGVK():
		for _, o := range upserts {
			a.namespaces[o.GetName()] = o.GetLabels()
			a.wakeNamespaceLocked(o.GetName())
		}
		for _, name := range deletes {
			delete(a.namespaces, name.Name)
			a.wakeNamespaceLocked(name.Name)
		}
	case kube.PeerAuthenticationGVK():
		for _, o := range upserts {
			if p, ok := o.(*securityv1.PeerAuthentication); ok {
				a.policies[kube.NameOf(o)] = p
			}
		}
		for _, name := range deletes {
			delete(a.policies, name)
		}
		a.hurry()
	default:
		return
	}
	close(a.arrived)
	a.arrived = make(chan struct{})
}

func (a *Agent) applyPodsLocked(upserts []kube.Object, deletes []types.NamespacedName) {
	for _, o := range upserts {
		pod, ok := o.(*corev1.Pod)
		if !ok || pod.Spec.NodeName != a.cfg.Node && pod.Spec.NodeName != "" {
			continue
		}
		a.pods[kube.NameOf(o)] = pod
		a.wakeLocked(string(pod.UID))
	}
	for _, name := range deletes {
		if pod, ok := a.pods[name]; ok {
			delete(a.pods, name)
			delete(a.missing, string(pod.UID))
			a.wakeLocked(string(pod.UID))
		}
	}
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
	a.hurry()
}

func (a *Agent) wakeLocked(uid string) {
	if _, ok := a.records[uid]; !ok {
		a.hurry()
		return
	}
	if a.ctx.Err() != nil {
		return
	}
	select {
	case <-a.synced:
		a.work.Go(func() { a.reconcile(uid) })
	default: // before, deciding on half of the objects would un-enrol pods
	}
}

// hurry makes Run look without waiting for its next turn.
func (a *Agent) hurry() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// Run brings the pods to where they should be, keeps trying what failed, and returns when ctx has ended and nothing is under
// way.
func (a *Agent) Run(ctx context.Context) {
	defer a.work.Wait()
	if a.WaitSynced(ctx) != nil {
		return
	}
	ticker, inspection := time.NewTicker(retryEvery), time.NewTicker(inspectEvery)
	defer ticker.Stop()
	defer inspection.Stop()
	for {
		a.Restore()
		a.forgetOrphans()
		a.lookAfterOlder()
		select {
		case <-ticker.C:
		case <-inspection.C:
			a.inspect()
		case <-a.kick:
			select { // more of it may be on the way
			case <-time.After(coalesce):
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return
		}
	}
}

// Restore finds pods that it does not know, and brings all that have a network to where they should be, once. Before the proxies
// are served, it fills the snapshot: a proxy stops what a snapshot does not name.
func (a *Agent) Restore() {
	a.discover()
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
	return r, pod, a.wantedLocked(pod)
}

func (a *Agent) wantedLocked(pod *corev1.Pod) bool {
	return !a.cfg.Disabled && a.cfg.Selection.wanted(pod, a.namespaces[pod.Namespace], a.excluded)
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

// Pod returns a pod of this node as it was seen last; nil if there is none.
func (a *Agent) Pod(namespace, name string) *corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods[types.NamespacedName{Namespace: namespace, Name: name}]
}
