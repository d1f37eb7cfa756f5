// Package inpod takes the node's pods from the CNI agent and keeps a proxy instance for each.
//
// wire.go is the protocol's packets, client.go the conversation, manager.go what is running. Instances outlive the
// connection to the agent: while it is away, the pods of the node go on as they are.
package inpod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
)

// retryEvery is the pause between attempts to start a proxy.
const retryEvery = 5 * time.Second

// lingerCheck is how often it is asked whether a pod that was taken out of the mesh still has a network.
const lingerCheck = 2 * time.Second

// Instance is the proxy of one pod.
type Instance interface {
	Drain(ctx context.Context)
	Connections() (inbound, outbound []proxy.ConnInfo)
}

// Starter starts instances. On return the pod's listeners are open.
type Starter interface {
	StartPod(ctx context.Context, pod proxy.Pod) (Instance, error)
}

// Observer is told which pods the node has; it may prepare their certificates. It is called under the manager's lock.
type Observer interface {
	PodAdded(proxy.Info)
	PodRemoved(proxy.Info)
}

// Config of a Manager.
type Config struct {
	// Socket of the agent.
	Socket string
	// Sockets are the options of all sockets in pods.
	Sockets netx.Options
	// DrainTimeout bounds the drain of a pod whose network namespace was replaced.
	DrainTimeout time.Duration
	Starter      Starter
	// Prepare, if set, is called before the proxy of a pod of the first snapshot starts, and returns when it can serve, or will not for
	// some time. Until then another process may be serving the pod; from then on both get its connections.
	Prepare  func(ctx context.Context, pod proxy.Info)
	Observer Observer
	Log      *slog.Logger
	Metrics  *Metrics
}

// Manager runs the instances.
type Manager struct {
	cfg    Config
	synced chan struct{} // closed when the first snapshot has been applied without anything pending

	mu       sync.Mutex // guards what follows
	pods     map[string]*pod
	closed   bool
	snapshot bool // the first snapshot is complete
	isSynced bool

	drains sync.WaitGroup
	// life ends the drains of removed pods, at the end of the process.
	life    context.Context //nolint:containedctx // see above
	endLife context.CancelFunc
}

// pod is one entry; Manager.mu guards it.
type pod struct {
	info     proxy.Info
	net      *netx.NS
	instance Instance // nil while pending
	named    bool     // in the snapshot under way
}

// NewManager has no pods yet.
func NewManager(cfg Config) *Manager {
	m := &Manager{cfg: cfg, synced: make(chan struct{}), pods: map[string]*pod{}}
	m.life, m.endLife = context.WithCancel(context.Background())
	return m
}

// Synced is closed once all pods of the agent's first snapshot have a running proxy.
func (m *Manager) Synced() <-chan struct{} { return m.synced }

// Info describes one pod for the configuration dump.
type Info struct {
	UID               string
	Pod               proxy.Info
	Running           bool
	Inbound, Outbound []proxy.ConnInfo
}

// Pods lists the pods by uid.
func (m *Manager) Pods() []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Info
	for _, uid := range slices.Sorted(maps.Keys(m.pods)) {
		p := m.pods[uid]
		info := Info{UID: uid, Pod: p.info, Running: p.instance != nil}
		if p.instance != nil {
			info.Inbound, info.Outbound = p.instance.Connections()
		}
		out = append(out, info)
	}
	return out
}

// beginSnapshot forgets what the agent has named before.
func (m *Manager) beginSnapshot() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pods {
		p.named = false
	}
}

// add takes a pod. The file is the manager's from here on.
func (m *Manager) add(ctx context.Context, uid string, info proxy.Info, file *os.File) error {
	ns, err := netx.NewNS(file, m.cfg.Sockets)
	if err != nil {
		file.Close()
		return fmt.Errorf("failure to start proxy : %w", err)
	}
	if m.cfg.Prepare != nil && m.begins() {
		m.cfg.Prepare(ctx, info)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		ns.Close()
		return errors.New("failure to start proxy : shutting down")
	}
	if old, ok := m.pods[uid]; ok {
		if sameNS(old.net, ns) && old.info == info {
			ns.Close()
			old.named = true
			return m.startLocked(ctx, uid, old)
		}
		m.removeLocked(uid, m.cfg.DrainTimeout) //nolint:contextcheck // draining outlives the conversation
	}
	p := &pod{info: info, net: ns, named: true}
	m.pods[uid] = p
	m.cfg.Metrics.pending.Inc()
	m.cfg.Observer.PodAdded(info)
	return m.startLocked(ctx, uid, p)
}

// begins reports whether the first snapshot is not complete.
func (m *Manager) begins() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.snapshot
}

func sameNS(a, b *netx.NS) bool {
	devA, inoA := a.Identity()
	devB, inoB := b.Identity()
	return devA == devB && inoA == inoB
}

// startLocked starts the proxy of a pod that has none.
func (m *Manager) startLocked(ctx context.Context, uid string, p *pod) error {
	if p.instance != nil {
		return nil
	}
	instance, err := m.cfg.Starter.StartPod(ctx, proxy.Pod{UID: uid, Info: p.info, Net: p.net})
	if err != nil {
		m.cfg.Log.Error("proxy of a pod not started; trying again", "pod", p.info.Namespace+"/"+p.info.Name, "uid", uid, "error", err)
		return fmt.Errorf("failure to start proxy : %w", err)
	}
	p.instance = instance
	m.cfg.Metrics.pending.Dec()
	m.cfg.Metrics.active.Inc()
	m.cfg.Metrics.started.Inc()
	m.cfg.Log.Info("proxy of a pod started", "pod", p.info.Namespace+"/"+p.info.Name, "uid", uid)
	m.checkSyncedLocked()
	return nil
}

// keep confirms a pod that an earlier connection has added.
func (m *Manager) keep(uid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pods[uid]
	if !ok {
		return fmt.Errorf("failure to process message : keep of the unknown workload %s", uid)
	}
	p.named = true
	return nil
}

// endSnapshot takes out the pods that the agent has not named.
func (m *Manager) endSnapshot() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, p := range m.pods {
		if !p.named {
			m.removeLocked(uid, 0)
		}
	}
	m.snapshot = true
	m.checkSyncedLocked()
}

func (m *Manager) checkSyncedLocked() {
	if !m.snapshot || m.isSynced {
		return
	}
	for _, p := range m.pods {
		if p.instance == nil {
			return
		}
	}
	m.isSynced = true
	close(m.synced)
}

// remove takes a pod out of the mesh. What is open goes on as long as the pod has a network.
func (m *Manager) remove(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removeLocked(uid, 0)
}

// removeLocked drains in the background; without a timeout until the pod's network is gone.
func (m *Manager) removeLocked(uid string, timeout time.Duration) {
	p, ok := m.pods[uid]
	if !ok {
		return
	}
	delete(m.pods, uid)
	m.cfg.Observer.PodRemoved(p.info)
	m.checkSyncedLocked()
	if p.instance == nil {
		m.cfg.Metrics.pending.Dec()
		p.net.Close()
		return
	}
	m.cfg.Metrics.active.Dec()
	m.cfg.Log.Info("proxy of a pod drains", "pod", p.info.Namespace+"/"+p.info.Name, "uid", uid)
	m.drains.Go(func() {
		ctx, cancel := context.WithCancel(m.life)
		defer cancel()
		if timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.instance.Drain(ctx)
		}()
		cutWithNetwork(p.net, ended, cancel)
		m.cfg.Metrics.stopped.Inc()
		p.net.Close()
	})
}

// cutWithNetwork returns when drained is closed. It ends the drain when the namespace has lost its interfaces: the pod is
// gone then, and our sockets are the only thing that keeps the namespace.
func cutWithNetwork(ns *netx.NS, drained <-chan struct{}, cut func()) {
	ticker := time.NewTicker(lingerCheck)
	defer ticker.Stop()
	for {
		select {
		case <-drained:
			return
		case <-ticker.C:
			if !hasNetwork(ns) {
				cut()
			}
		}
	}
}

func hasNetwork(ns *netx.NS) bool {
	var found bool
	err := ns.Do(func() error {
		interfaces, err := net.Interfaces()
		for _, i := range interfaces {
			found = found || i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0
		}
		return err
	})
	return err != nil || found
}

// retry starts the proxies that are pending, every few seconds until ctx ends.
func (m *Manager) retry(ctx context.Context) {
	ticker := time.NewTicker(retryEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		m.mu.Lock()
		for uid, p := range m.pods {
			_ = m.startLocked(ctx, uid, p) // logged
		}
		m.mu.Unlock()
	}
}

// Drain drains all instances, those that have been removed before included, and returns when nothing is left. Open
// connections are ended when ctx ends.
func (m *Manager) Drain(ctx context.Context) {
	m.mu.Lock()
	m.closed = true
	pods := m.pods
	m.pods = map[string]*pod{}
	m.mu.Unlock()
	defer context.AfterFunc(ctx, m.endLife)()
	var all sync.WaitGroup
	for _, p := range pods {
		all.Go(func() {
			if p.instance != nil {
				p.instance.Drain(ctx)
			}
			p.net.Close()
		})
	}
	all.Wait()
	m.drains.Wait()
	m.endLife()
}

// Mover is an Instance whose connections can move to another process, or come from one.
type Mover interface {
	HandOver(ctx context.Context, to proxy.Successor) proxy.Moved
	Adopt(ctx context.Context, parcel *proxy.Parcel, files []*os.File) (*proxy.Adoption, error)
}

// HandOver moves what all pods have open to a successor, a pod after the other. What it does not take is left to Drain.
func (m *Manager) HandOver(ctx context.Context, to proxy.Successor) proxy.Moved {
	m.mu.Lock()
	m.closed = true
	instances := make([]Instance, 0, len(m.pods))
	for _, p := range m.pods {
		instances = append(instances, p.instance)
	}
	m.mu.Unlock()
	var all proxy.Moved
	for _, instance := range instances {
		mover, ok := instance.(Mover)
		if !ok {
			continue // pending
		}
		moved := mover.HandOver(ctx, to)
		all.Connections += moved.Connections
		all.Tunnels += moved.Tunnels
		all.Stayed += moved.Stayed
		all.Longest = max(all.Longest, moved.Longest)
	}
	return all
}

// Adopt gives what an old instance offers to the pod that it belongs to.
func (m *Manager) Adopt(ctx context.Context, parcel *proxy.Parcel, files []*os.File) (*proxy.Adoption, error) {
	m.mu.Lock()
	var mover Mover
	if p := m.pods[parcel.PodUID()]; p != nil && !m.closed {
		mover, _ = p.instance.(Mover)
	}
	m.mu.Unlock()
	if mover == nil {
		parcel.Erase()
		for _, f := range files {
			f.Close()
		}
		return nil, fmt.Errorf("the pod %s is not served here", parcel.PodUID())
	}
	return mover.Adopt(ctx, parcel, files)
}

// Metrics of the manager.
type Metrics struct {
	active, pending  prometheus.Gauge
	started, stopped prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		active:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "workload_manager_active_proxy_count", Help: "Pods with a running proxy."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "workload_manager_pending_proxy_count", Help: "Pods whose proxy could not be started yet."}),
		started: prometheus.NewCounter(prometheus.CounterOpts{Name: "workload_manager_proxies_started_total", Help: "Proxies started."}),
		stopped: prometheus.NewCounter(prometheus.CounterOpts{Name: "workload_manager_proxies_stopped_total", Help: "Proxies stopped."}),
	}
	for _, c := range []prometheus.Collector{m.active, m.pending, m.started, m.stopped} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register workload manager metrics: %w", err)
		}
	}
	return m, nil
}
