package rootcert

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func namespace(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// bed is a distributor at work.
type bed struct {
	t    *testing.T
	api  *fake.Clientset
	d    *Distributor
	root atomic.Value
}

func start(t *testing.T, objects ...*corev1.Namespace) *bed {
	t.Helper()
	b := &bed{t: t, api: fake.NewClientset()}
	b.root.Store("one")
	for _, o := range objects {
		b.add(o)
	}
	b.d = New(Config{
		API: b.api, Name: RootsName, Log: slog.New(slog.DiscardHandler),
		Data:     func() map[string]string { return map[string]string{RootsKey: b.root.Load().(string)} },
		Selected: func(n *corev1.Namespace) bool { return n.Labels["mesh"] != "no" },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, resource := range []string{"namespaces", "configmaps"} {
		kubetest.AwaitWatches(t, b.api, resource, 1)
	}
	return b
}

func (b *bed) add(n *corev1.Namespace) {
	b.t.Helper()
	if _, err := b.api.CoreV1().Namespaces().Create(b.t.Context(), n, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) stored(namespace string) *corev1.ConfigMap {
	m, err := b.api.CoreV1().ConfigMaps(namespace).Get(b.t.Context(), RootsName, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return m
}

func (b *bed) expect(namespace, want string) {
	b.t.Helper()
	wait.Until(b.t, time.Minute, namespace+" has "+want, func() bool {
		m := b.stored(namespace)
		return m != nil && m.Data[RootsKey] == want && len(m.Data) == 1 && m.Labels["istio.io/config"] == "true"
	}, func() string { return fmt.Sprint(b.stored(namespace)) })
}

func TestEveryNamespaceHasTheRoots(t *testing.T) {
	b := start(t, namespace("shop", nil), namespace("kube-system", nil), namespace("other", map[string]string{"mesh": "no"}))
	b.expect("shop", "one")
	b.add(namespace("later", nil))
	b.expect("later", "one")

	maps := b.api.CoreV1().ConfigMaps("shop")
	if err := maps.Delete(t.Context(), RootsName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.expect("shop", "one")
	changed := b.stored("shop")
	changed.Data, changed.Labels = map[string]string{RootsKey: "forged", "more": "x"}, map[string]string{"mine": "kept"}
	if _, err := maps.Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.expect("shop", "one")
	if b.stored("shop").Labels["mine"] != "kept" {
		t.Error("labels of others are gone")
	}

	b.root.Store("two")
	b.d.Refresh()
	b.expect("shop", "two")
	b.expect("later", "two")
	for _, name := range []string{"kube-system", "other"} {
		if m := b.stored(name); m != nil {
			t.Errorf("%s has %v", name, m)
		}
	}
	other := namespace("other", nil)
	if _, err := b.api.CoreV1().Namespaces().Update(t.Context(), other, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.expect("other", "two")
}
