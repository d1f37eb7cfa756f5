package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/network"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

const (
	firstRetry = time.Second
	maxRetry   = 10 * time.Second
	// firstFill is short: a ConfigMap or Secret is often made at the same time as the pod.
	firstFill = 200 * time.Millisecond
	// teardownTimeout bounds the plugins' part in taking a pod's network away.
	teardownTimeout = 20 * time.Second
)

// pod is one pod's life.
type pod struct {
	// immutable
	runtime *Runtime
	node    Node
	object  *corev1.Pod // as it was when it came: spec and names
	dir     string

	ending  chan struct{} // closed when the pod is to end
	endOnce sync.Once
	nudged  chan struct{} // holds a token after a change of the store

	mu         sync.Mutex // guards what follows
	grace      time.Duration
	net        *os.File // nil before there is a network
	uts        *os.File
	ips        []netip.Addr
	containers []*container
	reason     string // why it does not run yet
	message    string
}

func newPod(r *Runtime, node Node, object *corev1.Pod) *pod {
	return &pod{runtime: r, node: node, object: object, dir: filepath.Join(r.cfg.Dir, string(object.UID)), ending: make(chan struct{}), nudged: make(chan struct{}, 1)}
}

// nudge says that objects have changed.
func (p *pod) nudge() {
	select {
	case p.nudged <- struct{}{}:
	default:
	}
}

// current is the pod's object as it is now: its labels and annotations change.
func (p *pod) current() *corev1.Pod {
	o, ok := p.runtime.cfg.Store.Get(store.Key{Kind: "Pod", Namespace: p.object.Namespace, Name: p.object.Name})
	if now, isPod := o.(*corev1.Pod); ok && isPod && now.UID == p.object.UID {
		return now
	}
	return p.object
}

// end asks for the pod's end, once.
func (p *pod) end(grace time.Duration) {
	p.endOnce.Do(func() {
		p.mu.Lock()
		p.grace = grace
		p.mu.Unlock()
		close(p.ending)
	})
}

// live runs the pod from its beginning to the removal of its object.
func (p *pod) live(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // what is being set up is given up when the pod is to end
		select {
		case <-p.ending:
			p.mu.Lock()
			started := len(p.containers) > 0
			p.mu.Unlock()
			if !started {
				cancel()
			}
		case <-ctx.Done():
		}
	}()
	if p.setUp(ctx) {
		p.run(ctx)
	}
	p.tearDown() //nolint:contextcheck // goes on when the runtime ends
}

// setUp makes the network, trying again until it succeeds or the pod is to end.
func (p *pod) setUp(ctx context.Context) bool {
	retry := firstRetry
	for ctx.Err() == nil {
		err := p.connect(ctx)
		if err == nil {
			p.setReason("", "")
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		p.runtime.cfg.Log.Warn("pod not set up; trying again", "pod", p.name(), "error", err, "retry_in", retry)
		p.setReason("ContainerCreating", err.Error())
		select {
		case <-time.After(retry):
		case <-ctx.Done():
		case <-p.ending:
			return false
		}
		retry = min(2*retry, maxRetry)
	}
	return false
}

func (p *pod) name() string { return p.object.Namespace + "/" + p.object.Name }

// pin is the name of the pod's network namespace.
func (p *pod) pin() string { return "pod-" + string(p.object.UID) }

func (p *pod) podNet() network.PodNet {
	return network.PodNet{ID: string(p.object.UID), Pin: p.pin(), Namespace: p.object.Namespace, Name: p.object.Name, UID: string(p.object.UID)}
}

// connect gives the pod its directory, host name and network.
func (p *pod) connect(ctx context.Context) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	hostname := p.object.Spec.Hostname
	if hostname == "" {
		hostname = p.object.Name
	}
	if p.object.Spec.HostNetwork {
		hostname = p.node.Name
	}
	if p.uts == nil {
		uts, err := ns.NewUTS(hostname)
		if err != nil {
			return err
		}
		p.uts = uts
	}
	if p.object.Spec.HostNetwork {
		p.setNet(p.node.Net, []netip.Addr{p.node.Addr4.Addr(), p.node.Addr6.Addr()})
		return nil
	}
	pin := filepath.Join(p.node.PinDir(), p.pin())
	file, err := ns.NewNet(pin)
	if err != nil {
		return err
	}
	ips, err := p.plug(ctx, file)
	if err != nil {
		file.Close()
		return errors.Join(err, ns.Unpin(pin))
	}
	p.setNet(file, ips)
	return nil
}

func (p *pod) plug(ctx context.Context, file *os.File) ([]netip.Addr, error) {
	if err := network.PreparePod(file); err != nil {
		return nil, err
	}
	return p.node.CNI.Add(ctx, p.podNet())
}

func (p *pod) setNet(file *os.File, ips []netip.Addr) {
	p.mu.Lock()
	p.net, p.ips = file, ips
	p.mu.Unlock()
	p.report()
}

func (p *pod) setReason(reason, message string) {
	p.mu.Lock()
	p.reason, p.message = reason, message
	p.mu.Unlock()
	p.report()
}

// run starts the containers and returns when they have ended for good.
func (p *pod) run(ctx context.Context) {
	volumes := p.fill(ctx)
	if volumes == nil {
		return
	}
	defer volumes.close()
	following, stop := context.WithCancel(ctx)
	var follow sync.WaitGroup
	follow.Go(func() {
		for {
			select {
			case <-p.nudged:
				volumes.refresh()
			case <-following.Done():
				return
			}
		}
	})
	defer follow.Wait()
	defer stop()
	if !p.runInit(ctx, volumes) {
		return
	}
	var main []*container
	for i := range p.object.Spec.Containers {
		main = append(main, p.newContainer(&p.object.Spec.Containers[i], volumes, p.restartPolicy()))
	}
	p.mu.Lock()
	p.containers = append(p.containers, main...)
	p.mu.Unlock()
	var running sync.WaitGroup
	for _, c := range main {
		running.Go(func() { c.run(ctx) })
	}
	running.Wait()
	p.report()
	if ctx.Err() == nil {
		<-p.ending // the object stays until somebody deletes it
	}
}

// fill makes the pod's volumes. What is missing for one may come yet: it tries until the pod is to end, and then returns nil.
func (p *pod) fill(ctx context.Context) *volumes {
	for retry := firstFill; ; retry = min(2*retry, maxRetry) {
		volumes, err := p.newVolumes() //nolint:contextcheck // they live as long as the runtime lets the pod
		if err == nil {
			p.setReason("", "")
			return volumes
		}
		p.setReason("CreateContainerConfigError", err.Error())
		select {
		case <-time.After(retry):
		case <-p.ending:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *pod) restartPolicy() corev1.RestartPolicy {
	if p.object.Spec.RestartPolicy == "" {
		return corev1.RestartPolicyAlways
	}
	return p.object.Spec.RestartPolicy
}

// runInit runs the init containers one after the other; those that are to go on beside the others are only waited for
// until they have started.
func (p *pod) runInit(ctx context.Context, volumes *volumes) bool {
	for i := range p.object.Spec.InitContainers {
		spec := &p.object.Spec.InitContainers[i]
		if spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			c := p.newContainer(spec, volumes, corev1.RestartPolicyAlways)
			p.mu.Lock()
			p.containers = append(p.containers, c)
			p.mu.Unlock()
			go c.run(ctx)
			select {
			case <-c.started:
			case <-p.ending:
				return false
			case <-ctx.Done():
				return false
			}
			continue
		}
		p.setReason("PodInitializing", "")
		policy := corev1.RestartPolicyOnFailure
		if p.restartPolicy() == corev1.RestartPolicyNever {
			policy = corev1.RestartPolicyNever
		}
		c := p.newContainer(spec, volumes, policy)
		c.run(ctx)
		if !c.succeeded() {
			p.setReason("Init:Error", c.lastError())
			select {
			case <-p.ending:
			case <-ctx.Done():
			}
			return false
		}
	}
	p.setReason("", "")
	return true
}

// gracePeriod is valid once the pod is ending.
func (p *pod) gracePeriod() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.grace
}

// tearDown takes the pod's network, files and object away.
func (p *pod) tearDown() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.runtime.ctx), teardownTimeout)
	defer cancel()
	p.mu.Lock()
	file := p.net
	p.net = nil
	p.mu.Unlock()
	log := p.runtime.cfg.Log
	if file != nil && !p.object.Spec.HostNetwork {
		if err := p.node.CNI.Delete(ctx, p.podNet()); err != nil {
			log.Warn("pod's network not taken away in order", "pod", p.name(), "error", err)
		}
		file.Close()
		if err := ns.Unpin(filepath.Join(p.node.PinDir(), p.pin())); err != nil {
			log.Warn("pod's network namespace stays", "pod", p.name(), "error", err)
		}
	}
	if p.uts != nil {
		p.uts.Close()
	}
	if err := os.RemoveAll(p.dir); err != nil {
		log.Warn("files of a pod stay", "pod", p.name(), "error", err)
	}
	if err := os.RemoveAll(filepath.Dir(p.runtime.LogFile(p.object, "x"))); err != nil {
		log.Warn("logs of a pod stay", "pod", p.name(), "error", err)
	}
	key := store.Key{Kind: "Pod", Namespace: p.object.Namespace, Name: p.object.Name}
	if current, ok := p.runtime.cfg.Store.Get(key); ok && current.GetUID() == p.object.UID {
		if _, err := p.runtime.cfg.Store.Delete(key); err != nil {
			log.Error("object of a pod stays", "pod", p.name(), "error", err)
		}
	}
}

// report writes the pod's status if it has changed.
func (p *pod) report() {
	p.mu.Lock()
	status := p.statusLocked()
	p.mu.Unlock()
	key := store.Key{Kind: "Pod", Namespace: p.object.Namespace, Name: p.object.Name}
	current, ok := p.runtime.cfg.Store.Get(key)
	if !ok {
		return
	}
	if old, ok := current.(*corev1.Pod); ok && sameStatus(old.Status, status) {
		return
	}
	err := store.Modify(p.runtime.cfg.Store, key, p.object.UID, func(o *corev1.Pod) {
		keepTransitions(&status, o.Status)
		o.Status = status
	})
	if err != nil {
		p.runtime.cfg.Log.Error("status of a pod not written", "pod", p.name(), "error", err)
	}
}

// sameStatus compares what is not a time.
func sameStatus(a, b corev1.PodStatus) bool {
	b = *b.DeepCopy()
	keepTransitions(&b, a)
	b.StartTime = a.StartTime
	return equality.Semantic.DeepEqual(a, b)
}

// keepTransitions keeps the times of conditions that have not changed.
func keepTransitions(next *corev1.PodStatus, old corev1.PodStatus) {
	next.StartTime = old.StartTime
	if next.StartTime == nil {
		now := metav1.NewTime(time.Now().Truncate(time.Second))
		next.StartTime = &now
	}
	for i := range next.Conditions {
		for _, o := range old.Conditions {
			if o.Type == next.Conditions[i].Type && o.Status == next.Conditions[i].Status {
				next.Conditions[i].LastTransitionTime = o.LastTransitionTime
			}
		}
	}
}

func (p *pod) statusLocked() corev1.PodStatus {
	s := corev1.PodStatus{Phase: corev1.PodPending, Reason: p.reason, Message: p.message, HostIP: p.node.Addr4.Addr().String()}
	s.HostIPs = []corev1.HostIP{{IP: s.HostIP}, {IP: p.node.Addr6.Addr().String()}}
	for i, ip := range p.ips {
		if i == 0 {
			s.PodIP = ip.String()
		}
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip.String()})
	}
	ready := len(p.containers) > 0 && p.reason == ""
	done, failed := len(p.containers) > 0, false
	for _, c := range p.containers {
		cs := c.status()
		s.ContainerStatuses = append(s.ContainerStatuses, cs)
		ready = ready && cs.Ready
		done = done && c.finished()
		failed = failed || c.finished() && !c.succeeded()
	}
	switch {
	case done && failed:
		s.Phase = corev1.PodFailed
	case done:
		s.Phase = corev1.PodSucceeded
	case len(p.containers) > 0:
		s.Phase = corev1.PodRunning
	}
	condition := func(kind corev1.PodConditionType, ok bool) {
		status := corev1.ConditionFalse
		if ok {
			status = corev1.ConditionTrue
		}
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second))})
	}
	condition(corev1.PodScheduled, true)
	condition(corev1.PodInitialized, len(p.containers) > 0)
	condition(corev1.ContainersReady, ready && !done)
	condition(corev1.PodReady, ready && !done)
	return s
}

// resolvConf is the pod's /etc/resolv.conf.
func (p *pod) resolvConf() []byte {
	namespace := p.object.Namespace
	search := []string{namespace + ".svc.cluster.local", "svc.cluster.local", "cluster.local"}
	return fmt.Appendf(nil, "search %s\nnameserver %s\noptions ndots:5\n", strings.Join(search, " "), p.runtime.cfg.DNS)
}

// hosts is the pod's /etc/hosts.
func (p *pod) hosts() []byte {
	text := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ip := range p.ips {
		text += ip.String() + "\t" + p.object.Name + "\n"
	}
	for _, alias := range p.object.Spec.HostAliases {
		text += alias.IP + "\t" + strings.Join(alias.Hostnames, " ") + "\n"
	}
	return []byte(text)
}
