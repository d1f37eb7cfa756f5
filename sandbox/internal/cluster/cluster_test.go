package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/cluster"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// bed is controllers of two nodes; pods come to life when the test says so.
type bed struct {
	t     *testing.T
	store *store.Store
	loops *cluster.Controllers
}

func newBed(t *testing.T) *bed {
	t.Helper()
	names := 0
	b := &bed{t: t, store: store.New(t.TempDir(), func() {})}
	b.loops = cluster.New(b.store, []string{"node-1", "node-2"}, func() string { names++; return fmt.Sprintf("%05d", names) })
	b.apply("{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
	return b
}

func (b *bed) apply(text string) {
	b.t.Helper()
	objects, errs := manifest.Decode("test.yaml", []byte(text))
	if len(errs) > 0 {
		b.t.Fatal(errs)
	}
	for _, o := range objects {
		if err := b.store.Put(o); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.loops.Reconcile(); err != nil {
		b.t.Fatal(err)
	}
}

func object(t *testing.T, text string) manifest.Object {
	t.Helper()
	objects, errs := manifest.Decode("test.yaml", []byte(text))
	if len(errs) > 0 || len(objects) != 1 {
		t.Fatalf("%d objects, %v", len(objects), errs)
	}
	return objects[0]
}

func (b *bed) reconcile() {
	b.t.Helper()
	if err := b.loops.Reconcile(); err != nil {
		b.t.Fatal(err)
	}
}

// pods are those that are not being ended, as "name@node", with a * when ready.
func (b *bed) pods(prefix string) []string {
	var out []string
	for _, p := range store.List[*corev1.Pod](b.store) {
		if p.DeletionTimestamp == nil && strings.HasPrefix(p.Name, prefix) {
			text := p.Name + "@" + p.Spec.NodeName
			if cluster.Ready(p) {
				text += "*"
			}
			out = append(out, text)
		}
	}
	return out
}

// start makes all pods ready, and removes those that are being ended.
func (b *bed) start() {
	b.t.Helper()
	for i, p := range store.List[*corev1.Pod](b.store) {
		key := store.Key{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
		var err error
		if p.DeletionTimestamp != nil {
			_, err = b.store.Delete(key)
		} else {
			err = store.Modify(b.store, key, "", func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodRunning
				p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.244.1.%d", i+2)}, {IP: fmt.Sprintf("fd00::%d", i+2)}}
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			})
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	b.reconcile()
}

func deployment(replicas int, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: %s, ports: [{name: http, containerPort: 8080}]}]}
`, replicas, image)
}

func TestDeploymentSpreadsAndRolls(t *testing.T) {
	b := newBed(t)
	b.apply(deployment(3, "a"))
	if got := b.pods("web-"); len(got) != 3 || !strings.HasSuffix(got[0], "node-1") || !strings.HasSuffix(got[1], "node-2") {
		t.Fatalf("pods %v", got)
	}
	b.start()
	old := b.pods("web-")
	b.apply(deployment(3, "b"))
	for round := 0; ; round++ {
		now := b.pods("web-")
		ready := 0
		for _, p := range now {
			if strings.HasSuffix(p, "*") {
				ready++
			}
		}
		if ready < 3 || len(now) > 4 {
			t.Fatalf("round %d: %v: fewer than 3 ready, or more than 4 at all", round, now)
		}
		if !slices.ContainsFunc(now, func(p string) bool { return slices.Contains(old, p) }) && len(now) == 3 {
			break
		}
		if round > 20 {
			t.Fatalf("the update does not come to its end: %v", now)
		}
		b.start()
	}
	b.start()
	d := store.List[*appsv1.Deployment](b.store)[0]
	if d.Status.ReadyReplicas != 3 || d.Status.UpdatedReplicas != 3 || len(store.List[*appsv1.ReplicaSet](b.store)) != 1 {
		t.Errorf("status %+v", d.Status)
	}
	if _, err := b.store.Delete(store.Key{Group: "apps", Kind: "Deployment", Namespace: "default", Name: "web"}); err != nil {
		t.Fatal(err)
	}
	b.reconcile()
	b.start()
	if got := store.List[*corev1.Pod](b.store); len(got) > 0 {
		t.Errorf("pods outlive their Deployment: %d", len(got))
	}
}

func TestDaemonSetSurges(t *testing.T) {
	b := newBed(t)
	text := func(image string) string {
		return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: proxy}
spec:
  selector: {matchLabels: {app: proxy}}
  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template: {metadata: {labels: {app: proxy}}, spec: {containers: [{name: c, image: %s}]}}
`, image)
	}
	b.apply(text("a"))
	b.start()
	if got := b.pods("proxy-"); len(got) != 2 {
		t.Fatalf("pods %v", got)
	}
	b.apply(text("b"))
	got := b.pods("proxy-")
	if len(got) != 3 {
		t.Fatalf("beside the old pods runs not one new one: %v", got)
	}
	for range 10 {
		b.start()
		perNode := map[string]int{}
		for _, p := range b.pods("proxy-") {
			if strings.HasSuffix(p, "*") {
				_, node, _ := strings.Cut(p, "@")
				perNode[node]++
			}
		}
		if len(perNode) < 2 {
			t.Fatalf("a node without a ready pod: %v", b.pods("proxy-"))
		}
	}
	if got := b.pods("proxy-"); len(got) != 2 || strings.Contains(strings.Join(got, " "), "00001") {
		t.Errorf("after the update: %v", got)
	}
}

func TestServices(t *testing.T) {
	b := newBed(t)
	b.apply(deployment(2, "a") + `---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: other, port: 81, targetPort: nothing}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
`)
	services := map[string]*corev1.Service{}
	for _, s := range store.List[*corev1.Service](b.store) {
		services[s.Name] = s
	}
	if s := services["web"].Spec; len(s.ClusterIPs) != 2 || s.ClusterIPs[0] == services["outside"].Spec.ClusterIP || !strings.HasPrefix(s.ClusterIPs[1], "fd00:10:96:") {
		t.Errorf("addresses %v", s.ClusterIPs)
	}
	if p := services["outside"].Spec.Ports[0]; p.NodePort < 30000 || p.TargetPort.IntValue() != 80 || p.Protocol != corev1.ProtocolTCP {
		t.Errorf("port %+v", p)
	}
	slice := func(name string) *discoveryv1.EndpointSlice {
		for _, s := range store.List[*discoveryv1.EndpointSlice](b.store) {
			if s.Name == name {
				return s
			}
		}
		t.Fatalf("no EndpointSlice %s", name)
		return nil
	}
	if n := len(slice("web-ipv4").Endpoints); n != 0 {
		t.Errorf("%d endpoints without addresses", n)
	}
	b.start()
	s := slice("web-ipv4")
	if len(s.Endpoints) != 2 || !*s.Endpoints[0].Conditions.Ready || len(s.Ports) != 1 || *s.Ports[0].Port != 8080 || s.Labels[discoveryv1.LabelServiceName] != "web" {
		t.Errorf("slice %+v", s)
	}
	if len(slice("web-ipv6").Endpoints) != 2 {
		t.Error("no endpoints over IPv6")
	}
	p := store.List[*corev1.Pod](b.store)[0]
	if err := cluster.StopPod(b.store, p, time.Now()); err != nil {
		t.Fatal(err)
	}
	b.reconcile()
	for _, e := range slice("web-ipv4").Endpoints {
		if e.TargetRef.Name == p.Name && (*e.Conditions.Ready || !*e.Conditions.Serving || !*e.Conditions.Terminating) {
			t.Errorf("a pod that is being ended: %+v", e.Conditions)
		}
	}
}

func TestProblemsNameTheObject(t *testing.T) {
	b := newBed(t)
	objects, _ := manifest.Decode("x", []byte(`apiVersion: apps/v1
kind: Deployment
metadata: {name: odd}
spec: {selector: {matchLabels: {app: one}}, template: {metadata: {labels: {app: other}}, spec: {containers: [{name: c, image: a}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: lost}
spec: {nodeSelector: {kubernetes.io/hostname: node-9}, containers: [{name: c, image: a}]}
`))
	for _, o := range objects {
		if err := b.store.Put(o); err != nil {
			t.Fatal(err)
		}
	}
	err := b.loops.Reconcile()
	for _, want := range []string{"Deployment default/odd: spec.selector", "Pod default/lost: spec.nodeSelector"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}
