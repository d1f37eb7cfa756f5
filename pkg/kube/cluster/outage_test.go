//go:build envtest

package cluster_test

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

func service(namespace, name, v string) string {
	return `{apiVersion: v1, kind: Service, metadata: {name: ` + name + `, namespace: ` + namespace + `, labels: {v: "` + v + `"}}, spec: {ports: [{port: 80}]}}`
}

func TestAnOutageChangesNothing(t *testing.T) {
	s := kubetest.New(t)
	a := newAPI(t, s.REST())
	a.namespace("outage", "")
	for _, name := range []string{"kept", "changed", "removed"} {
		a.apply(service("outage", name, "1"))
	}
	peer := func(name string) string {
		return `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: ` + name + `, namespace: outage}, spec: {mtls: {mode: STRICT}}}`
	}
	a.apply(peer("kept"))
	a.apply(peer("removed"))
	r, _ := run(t, cluster.Config{REST: s.REST(), Kinds: cluster.MeshKinds()})
	r.events("")

	s.StopAPI()
	// Another client of the restarted server makes changes before the source has noticed.
	if err := s.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.apply(service("outage", "changed", "2"))
	a.delete(service("outage", "removed", "1"))
	a.apply(service("outage", "added", "1"))
	a.delete(peer("removed"))
	start := time.Now()
	eventually(t, "the changes", func() bool {
		return label(r.get("Service outage/changed")) == "v2" && r.get("Service outage/removed") == nil && r.get("Service outage/added") != nil && r.get("PeerAuthentication.security.istio.io outage/removed") == nil
	})
	t.Logf("caught up %v after the changes", time.Since(start))
	got := r.events("outage/")
	slices.Sort(got)
	want := []string{"+ Service outage/added", "+ Service outage/changed", "- PeerAuthentication.security.istio.io outage/removed", "- Service outage/removed"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}

	// A longer one: what is known stays.
	s.StopAPI()
	select {
	case <-time.After(3 * time.Second):
	case <-t.Context().Done():
	}
	if got := r.events("outage/"); len(got) != 0 || r.get("Service outage/kept") == nil {
		t.Errorf("told during an outage: %q", got)
	}
	if err := s.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.apply(service("outage", "changed", "3"))
	start = time.Now()
	eventually(t, "a change after the outage", func() bool { return label(r.get("Service outage/changed")) == "v3" })
	t.Logf("caught up %v after the change", time.Since(start))
	if got := r.events("outage/"); len(got) != 1 {
		t.Errorf("told after the outage: %q", got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.synced != 1 || len(r.errors) > 0 {
		t.Errorf("synced %d times, errors %v", r.synced, r.errors)
	}
}

func TestNamespacesAreSelected(t *testing.T) {
	a := newAPI(t, shared.REST())
	a.namespace("selected", "mesh: 'yes'")
	a.namespace("unselected", "mesh: 'no'")
	for _, ns := range []string{"selected", "unselected"} {
		a.apply(service(ns, "a", "1"))
	}
	selectors := make(chan []labels.Selector, 1)
	selectors <- []labels.Selector{labels.SelectorFromSet(labels.Set{"mesh": "yes"})}
	choose := func() []labels.Selector {
		current := <-selectors
		selectors <- current
		return current
	}
	// Namespaces are read although they are not asked for.
	r, s := run(t, cluster.Config{REST: shared.REST(), Kinds: slices.DeleteFunc(cluster.MeshKinds(), func(k schemaGVK) bool { return k == kube.NamespaceGVK() }), Selectors: choose})
	has := func(ns string) func() bool { return func() bool { return r.get("Service "+ns+"/a") != nil } }
	hasNot := func(ns string) func() bool { return func() bool { return r.get("Service "+ns+"/a") == nil } }
	if !has("selected")() || has("unselected")() {
		t.Fatalf("told: %q", r.events(""))
	}
	a.namespace("unselected", "mesh: 'yes'")
	eventually(t, "the namespace that became selected", has("unselected"))
	a.apply(service("unselected", "a", "2"))
	eventually(t, "a change in it", func() bool { return label(r.get("Service unselected/a")) == "v2" })
	a.namespace("unselected", "mesh: 'no'")
	eventually(t, "the namespace that ceased to be selected", hasNot("unselected"))
	a.apply(service("unselected", "a", "3"))
	<-selectors
	selectors <- []labels.Selector{labels.SelectorFromSet(labels.Set{"mesh": "no"})}
	s.Refresh()
	eventually(t, "other selectors", func() bool { return hasNot("selected")() && label(r.get("Service unselected/a")) == "v3" })
	<-selectors
	selectors <- nil
	s.Refresh()
	eventually(t, "no selectors", func() bool { return has("selected")() && has("unselected")() })
	if r.get("Namespace selected") != nil {
		t.Error("a kind that was not asked for")
	}
}

func TestPodsOfOneNode(t *testing.T) {
	a := newAPI(t, shared.REST())
	a.namespace("nodes", "")
	pod := func(name, node string) string {
		return `{apiVersion: v1, kind: Pod, metadata: {name: ` + name + `, namespace: nodes}, spec: {nodeName: ` + node + `, containers: [{name: a, image: a}]}}`
	}
	a.apply(pod("here", "node-a"))
	a.apply(pod("there", "node-b"))
	a.apply(service("nodes", "a", "1"))
	r, _ := run(t, cluster.Config{REST: shared.REST(), Kinds: []schemaGVK{kube.PodGVK(), kube.ServiceGVK()}, Node: "node-a"})
	a.apply(pod("late", "node-a"))
	eventually(t, "a pod of the node", func() bool { return r.get("Pod nodes/late") != nil })
	if r.get("Pod nodes/here") == nil || r.get("Pod nodes/there") != nil || r.get("Service nodes/a") == nil || r.get("Namespace nodes") != nil {
		t.Errorf("told: %q", r.events(""))
	}
}

func TestWhatMayNotBeReadIsReported(t *testing.T) {
	config, err := shared.As("nobody")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := start(t, cluster.Config{REST: config, Kinds: []schemaGVK{kube.PodGVK()}})
	eventually(t, "a report", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.errors) == 1 && r.errors[0].Kind == "Pod" && r.synced == 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Log(r.errors[0].Error())
}
