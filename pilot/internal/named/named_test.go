package named

import (
	"context"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestFollowsOneObject(t *testing.T) {
	client := fake.NewClientset()
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan string), make(chan error, 1)
	go func() {
		done <- ConfigMap(ctx, client, "istio-system", "istio", func(m *corev1.ConfigMap) {
			if m == nil {
				got <- "none"
				return
			}
			got <- m.Data["mesh"]
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case text := <-got:
			if text != want {
				t.Errorf("got %q, want %q", text, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("never got %q", want)
		}
	}
	maps := client.CoreV1().ConfigMaps("istio-system")
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio"}, Data: map[string]string{"mesh": "a"}}
	expect("none")
	kubetest.AwaitWatches(t, client, "configmaps", 1)
	if _, err := maps.Create(ctx, m, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("a")
	m.Data = map[string]string{"mesh": "b"}
	if _, err := maps.Update(ctx, m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("b")
	if err := maps.Delete(ctx, "istio", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("none")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
