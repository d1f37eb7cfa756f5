package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

func (b *bed) ready() (n int) {
	for _, p := range b.pods("") {
		if strings.HasSuffix(p, "*") {
			n++
		}
	}
	return n
}

// A rollout that does not come up is replaced by another: the pod that works stays until the new one does.
func TestBrokenRolloutThenFixed(t *testing.T) {
	for i := range 10 { // the order of the ReplicaSets depends on the hashes of their templates
		b := newBed(t)
		b.apply(deployment(1, "good"))
		b.start()
		good := b.pods("web-")
		b.apply(deployment(1, fmt.Sprintf("broken%d", i)))
		b.apply(deployment(1, "fixed"))
		if b.ready() != 1 {
			t.Errorf("broken%d: lost the pod that works: %v", i, b.pods("web-"))
		}
		if now := b.pods("web-"); len(now) != 2 {
			t.Errorf("broken%d: %v, want the one that works and the fixed one", i, now)
		}
		b.start()
		if now := b.pods("web-"); len(now) != 1 || now[0] == good[0] {
			t.Errorf("broken%d: in the end %v", i, now)
		}
	}
}

func TestRecreate(t *testing.T) {
	b := newBed(t)
	recreated := func(image string) string {
		return strings.Replace(deployment(2, image), "  replicas:", "  strategy: {type: Recreate}\n  replicas:", 1)
	}
	b.apply(recreated("a"))
	b.start()
	b.apply(recreated("b"))
	for _, p := range store.List[*corev1.Pod](b.store) {
		if p.DeletionTimestamp == nil {
			t.Errorf("%s exists beside the old ones", p.Name)
		}
	}
	b.start() // the old ones are gone now
	for _, p := range store.List[*corev1.Pod](b.store) {
		if p.DeletionTimestamp != nil || p.Spec.Containers[0].Image != "b" {
			t.Errorf("%s has %s", p.Name, p.Spec.Containers[0].Image)
		}
	}
	if n := len(b.pods("web-")); n != 2 {
		t.Errorf("%d pods", n)
	}
}

func TestDaemonSetWithoutSurge(t *testing.T) {
	b := newBed(t)
	text := func(image string) string {
		return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template: {metadata: {labels: {app: agent}}, spec: {containers: [{name: c, image: %s}]}}
`, image)
	}
	b.apply(text("a"))
	b.start()
	b.apply(text("b"))
	for round := 0; ; round++ {
		perNode := map[string]int{}
		done := true
		for _, p := range store.List[*corev1.Pod](b.store) {
			perNode[p.Spec.NodeName]++
			done = done && p.Spec.Containers[0].Image == "b" && p.DeletionTimestamp == nil
		}
		for node, n := range perNode {
			if n > 1 {
				t.Errorf("round %d: %d pods at once on %s", round, n, node)
			}
		}
		if b.ready() < 1 {
			t.Errorf("round %d: none is ready: %v", round, b.pods(""))
		}
		if done && b.ready() == 2 {
			return
		}
		if round > 10 {
			t.Fatalf("never replaced: %v", b.pods(""))
		}
		b.start()
	}
}

func TestNodeSelectors(t *testing.T) {
	b := newBed(t)
	b.apply("{apiVersion: v1, kind: Node, metadata: {name: node-2, labels: {disktype: ssd}}}")
	b.apply("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeSelector: {disktype: ssd}, containers: [{name: c, image: a}]}}")
	if got := b.pods("p"); len(got) != 1 || got[0] != "p@node-2" {
		t.Errorf("%v", got)
	}
	for says, spec := range map[string]string{"no node fits": "nodeSelector: {disktype: tape}", `there is no node "node-9"`: "nodeName: node-9"} {
		b := newBed(t)
		if err := b.store.Put(object(t, "{apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {"+spec+", containers: [{name: c, image: a}]}}")); err != nil {
			t.Fatal(err)
		}
		if err := b.loops.Reconcile(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q in it", spec, err, says)
		}
	}
}

func TestLoadBalancerAddress(t *testing.T) {
	b := newBed(t)
	service := func(name string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {type: LoadBalancer, loadBalancerIP: 10.96.7.7, ports: [{port: 80}]}}", name)
	}
	b.apply(service("first"))
	s, _ := b.store.Get(store.Key{Kind: "Service", Namespace: "default", Name: "first"})
	if got := s.(*corev1.Service).Status.LoadBalancer.Ingress; len(got) != 1 || got[0].IP != "10.96.7.7" {
		t.Errorf("%v", got)
	}
	if err := b.store.Put(object(t, service("second"))); err != nil {
		t.Fatal(err)
	}
	if err := b.loops.Reconcile(); err == nil || !strings.Contains(err.Error(), "default/first") {
		t.Errorf("an address that is taken: %v", err)
	}
}
