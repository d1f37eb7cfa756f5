// Package supervisor is the process that holds a sandbox: the first of its own PID namespace, with a mount namespace of its
// own. Everything of the sandbox is a descendant of it or a namespace that it holds, so that nothing outlives it.
//
// supervisor.go sets up and runs the one loop, serve.go is the API, objects.go what it does to objects, publish.go the
// ports on the machine.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/api"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/cluster"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/dns"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/gateways"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/images"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/mesh"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/nat"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/network"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/rootfs"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/runtime"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/token"
)

const (
	// dnsAddress is the ClusterIP of the cluster's DNS.
	dnsAddress = "10.96.0.10"
	// programs is where containers see the binaries.
	programs = "/run/isthmus/bin"
	// cniPlugins is where Debian keeps the stock CNI plugins.
	cniPlugins = "/usr/lib/cni"
	// firstRetry and maxRetry bound the time between two looks at everything.
	firstRetry, maxRetry = 100 * time.Millisecond, 2 * time.Second
)

// Config of a sandbox. It is handed from the starting process to the supervisor as JSON.
type Config struct {
	StateDir string   `json:"stateDir"`
	Nodes    int      `json:"nodes"`
	BinDir   string   `json:"binDir"`
	Profile  string   `json:"profile"`
	Publish  []string `json:"publish"`
	// Redirection is the back end of the CNI agent; "" is its own choice.
	Redirection string `json:"redirection,omitempty"`
}

// Supervisor holds a sandbox.
type Supervisor struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	runtime *runtime.Runtime
	loops   *cluster.Controllers
	fabric  *network.Fabric
	nodes   []runtime.Node
	dns     []*dns.Server
	changed chan struct{} // holds a token after a change of the store

	applied map[string]string // the table of each node; owned by the loop

	mu       sync.Mutex // guards what follows
	problems []string
	intents  map[types.UID]map[string]any // what manifests last said of objects
}

// Run sets a sandbox up and serves it until ctx ends.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	s := &Supervisor{cfg: cfg, log: log, changed: make(chan struct{}, 1), applied: map[string]string{}, intents: map[types.UID]map[string]any{}}
	s.store = store.New(filepath.Join(cfg.StateDir, "config"), s.wake)
	if err := s.setUp(ctx); err != nil {
		return err
	}
	stop, err := s.serve(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.publish(ctx); err != nil {
		return err
	}
	s.log.Info("sandbox serves", "nodes", len(s.nodes), "state", cfg.StateDir)
	// Time is a reason to look again too: after a failure, and for what others write.
	retry := firstRetry
	for {
		if s.step(ctx) {
			retry = firstRetry
		} else {
			retry = min(2*retry, maxRetry)
		}
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (s *Supervisor) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// step brings everything in line with the store, and says whether it did something new: then it is soon called again.
func (s *Supervisor) step(ctx context.Context) (fresh bool) {
	var problems []string
	note := func(err error) {
		if err != nil {
			problems = append(problems, strings.Split(err.Error(), "\n")...)
		}
	}
	note(s.loops.Reconcile())
	services, slicesOf := store.List[*corev1.Service](s.store), store.List[*discoveryv1.EndpointSlice](s.store)
	for i, node := range s.nodes {
		rules := nat.Rules(nat.Node{Name: node.Name, Addresses: []netip.Addr{node.Addr4.Addr(), node.Addr6.Addr()}}, services, slicesOf)
		if s.applied[node.Name] != rules {
			err := nat.Apply(ctx, node.Net, rules)
			note(err)
			if err == nil {
				s.applied[node.Name] = rules
			}
		}
		s.dns[i].Set(dns.Build("cluster.local", services, slicesOf))
	}
	s.runtime.Sync()
	s.forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = !slices.Equal(s.problems, problems)
	if fresh {
		for _, p := range problems {
			s.log.Warn("not in force", "problem", p)
		}
	}
	s.problems = problems
	return fresh
}

// setUp makes the nodes and their network.
func (s *Supervisor) setUp(ctx context.Context) error {
	for _, dir := range []string{"pins", "root", "keys", "logs", statusDir, api.Dir, "config/system", "config/user"} {
		if err := os.MkdirAll(filepath.Join(s.cfg.StateDir, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"ca", "pods"} { // keys, tokens and secrets are in there
		if err := os.MkdirAll(filepath.Join(s.cfg.StateDir, dir), 0o700); err != nil {
			return err
		}
	}
	signer, err := token.NewSigner()
	if err != nil {
		return err
	}
	keys, err := signer.JWKS()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.cfg.StateDir, "keys", "jwks.json"), keys, 0o644); err != nil {
		return err
	}
	if s.fabric, err = network.NewFabric(s.pin("fabric")); err != nil {
		return err
	}
	var names []string
	byName := map[string]runtime.Node{}
	for i := 1; i <= s.cfg.Nodes; i++ {
		node, err := s.addNode(ctx, network.PlanNode(i))
		if err != nil {
			return err
		}
		names = append(names, node.Name)
		byName[node.Name] = node
	}
	var parts []cluster.Part
	if s.cfg.Profile != api.ProfileNone {
		parts = append(parts, gateways.New(s.store), mesh.NewRootCerts(s.store, filepath.Join(s.cfg.StateDir, "root", mesh.RootCertKey)))
	}
	s.loops = cluster.New(s.store, names, randomSuffix, parts...)
	s.runtime = runtime.New(ctx, runtime.Config{
		Store: s.store, Nodes: byName, Images: images.New(programs), Programs: rootfs.Bind{Source: s.cfg.BinDir, Target: programs, ReadOnly: true},
		Dir: filepath.Join(s.cfg.StateDir, "pods"), Logs: filepath.Join(s.cfg.StateDir, "logs"), Signer: signer, DNS: dnsAddress,
		HostPath: s.hostPath, Log: s.log,
	})
	return s.firstObjects()
}

func (s *Supervisor) pin(name string) string { return filepath.Join(s.cfg.StateDir, "pins", name) }

func (s *Supervisor) addNode(ctx context.Context, plan network.NodePlan) (runtime.Node, error) {
	dir := filepath.Join(s.cfg.StateDir, "nodes", plan.Name)
	made, err := network.NewNode(plan, dir, s.pin(plan.Name), nil)
	if err != nil {
		return runtime.Node{}, err
	}
	var others []*os.File
	for _, n := range s.nodes {
		others = append(others, n.Net)
	}
	if err := s.fabric.Join(plan, made.Net, others); err != nil {
		return runtime.Node{}, err
	}
	node := runtime.Node{Node: made, CNI: network.NewCNI(made, []string{cniPlugins})}
	if err := node.CNI.WriteConfig(); err != nil {
		return runtime.Node{}, err
	}
	server, err := dns.Listen(ctx, made.Net, netip.AddrPortFrom(netip.MustParseAddr(dnsAddress), 53), dns.Upstreams("/etc/resolv.conf"), s.log)
	if err != nil {
		return runtime.Node{}, err
	}
	s.dns = append(s.dns, server)
	s.nodes = append(s.nodes, node)
	return node, nil
}

// hostPath maps what the mesh's manifests name to where it is kept.
func (s *Supervisor) hostPath(path string) (string, bool) {
	dir, ok := map[string]string{
		mesh.PathConfig: "config", mesh.PathCA: "ca", mesh.PathRoot: "root", mesh.PathKeys: "keys", mesh.PathAPI: api.Dir, mesh.PathStatus: statusDir,
	}[filepath.Clean(path)]
	return filepath.Join(s.cfg.StateDir, dir), ok
}

// firstObjects are those that every cluster has, and the mesh.
func (s *Supervisor) firstObjects() error {
	var problems []error
	for _, name := range []string{"default", "kube-system"} {
		problems = append(problems, s.store.Put(&corev1.Namespace{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name},
		}))
	}
	for _, n := range s.nodes {
		problems = append(problems, s.store.Put(&corev1.Node{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
				"kubernetes.io/hostname": n.Name, "topology.kubernetes.io/region": "sandbox", "topology.kubernetes.io/zone": "zone-" + n.Name,
			}},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.Addr4.Addr().String()}, {Type: corev1.NodeInternalIP, Address: n.Addr6.Addr().String()}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		}))
	}
	problems = append(problems, s.store.Put(&corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"},
		Spec: corev1.ServiceSpec{ClusterIP: dnsAddress, Ports: []corev1.ServicePort{
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
		}},
	}))
	if s.cfg.Profile != api.ProfileNone {
		problems = append(problems, s.store.Put(mesh.Config(s.cfg.Profile == api.ProfileDemo)))
		for _, r := range s.apply("mesh.yaml", mesh.Namespace, mesh.Manifests(s.cfg.Redirection)) {
			if r.Error != "" {
				problems = append(problems, fmt.Errorf("%s: %s", r.Object, r.Error))
			}
		}
	}
	if s.cfg.Profile == api.ProfileDemo {
		objects, err := mesh.Ingress()
		problems = append(problems, err)
		for _, o := range objects {
			problems = append(problems, s.store.Put(o))
		}
	}
	return errors.Join(problems...)
}

// randomSuffix is five letters and digits that spell nothing.
func randomSuffix() string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	out := make([]byte, 5)
	for i := range out {
		out[i] = letters[rand.IntN(len(letters))]
	}
	return string(out)
}

// status is what people and tests look at.
func (s *Supervisor) status() api.Status {
	out := api.Status{Nodes: []api.NodeStatus{}, Pods: []api.PodStatus{}, Services: []api.Service{}, Problems: []string{}, Published: s.cfg.Publish}
	for _, n := range s.nodes {
		out.Nodes = append(out.Nodes, api.NodeStatus{Name: n.Name, IPs: []string{n.Addr4.Addr().String(), n.Addr6.Addr().String()}})
	}
	meshPods, meshReady := 0, 0
	for _, p := range store.List[*corev1.Pod](s.store) {
		one := s.podStatus(p)
		out.Pods = append(out.Pods, one)
		if p.Namespace == mesh.Namespace {
			meshPods++
			if one.Ready {
				meshReady++
			}
		}
	}
	for _, svc := range store.List[*corev1.Service](s.store) {
		one := api.Service{Namespace: svc.Namespace, Name: svc.Name, Type: string(svc.Spec.Type), IPs: svc.Spec.ClusterIPs, Ports: []string{}}
		for _, p := range svc.Spec.Ports {
			text := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
			if p.NodePort != 0 {
				text = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
			}
			one.Ports = append(one.Ports, text)
		}
		out.Services = append(out.Services, one)
	}
	expected := 1 + 2*len(s.nodes)
	if s.cfg.Profile == api.ProfileDemo {
		expected++
	}
	out.Ready = s.cfg.Profile == api.ProfileNone || meshPods >= expected && meshReady == meshPods
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Problems = append(out.Problems, s.problems...)
	return out
}

func (s *Supervisor) podStatus(p *corev1.Pod) api.PodStatus {
	one := api.PodStatus{
		Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Phase: string(p.Status.Phase), Reason: p.Status.Reason, Message: p.Status.Message,
		IPs: []string{}, Ready: cluster.Ready(p), Redirection: p.Annotations["ambient.istio.io/redirection"], Terminating: p.DeletionTimestamp != nil,
		Created: p.CreationTimestamp.Time,
	}
	for _, ip := range p.Status.PodIPs {
		one.IPs = append(one.IPs, ip.IP)
	}
	for _, c := range p.Status.ContainerStatuses {
		one.Restarts += int(c.RestartCount)
		if c.State.Waiting != nil && one.Reason == "" {
			one.Reason, one.Message = c.State.Waiting.Reason, c.State.Waiting.Message
		}
	}
	for _, n := range s.nodes {
		if n.Name == p.Spec.NodeName && !p.Spec.HostNetwork {
			one.NetNS = filepath.Join(n.PinDir(), "pod-"+string(p.UID))
		}
	}
	return one
}

// netns returns the network namespace of a pod.
func (s *Supervisor) netns(namespace, name string) (ns.Set, error) {
	file, ok := s.runtime.NetNS(namespace, name)
	if !ok {
		return ns.Set{}, fmt.Errorf("pod %s/%s has no network", namespace, name)
	}
	return ns.Set{Net: file}, nil
}

// restartedAt is how a rollout is asked for.
const restartedAt = "kubectl.kubernetes.io/restartedAt"

func stamp() string { return time.Now().UTC().Format(time.RFC3339Nano) }

func nsOf(n runtime.Node) ns.Set { return ns.Set{Net: n.Net} }
