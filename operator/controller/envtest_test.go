//go:build envtest

package controller_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/operator/controller"
	"github.com/isthmus-mesh/isthmus/operator/deploy"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// bed is an API server with the operator's manifest in it, and the operator, under its own account, outside of it.
type bed struct {
	t       *testing.T
	admin   kubernetes.Interface
	objects dynamic.ResourceInterface
}

func newBed(t *testing.T) *bed {
	t.Helper()
	config := kubetest.Start(t, kubetest.WithoutCRDs())
	b := &bed{t: t, admin: kubernetes.NewForConfigOrDie(config)}
	client := dynamic.NewForConfigOrDie(config)
	b.objects = client.Resource(schema.GroupVersionResource{Group: "install.istio.io", Version: "v1alpha1", Resource: "istiooperators"}).Namespace("istio-system")
	resources, err := restmapper.GetAPIGroupResources(b.admin.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(resources)
	manifest, err := render.Decode(deploy.Operator)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range manifest {
		mapping, err := mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Resource(mapping.Resource).Namespace(u.GetNamespace()).Create(t.Context(), u, metav1.CreateOptions{FieldValidation: "Strict"}); err != nil {
			t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
		}
	}
	b.eventually("the kind is served", func() error {
		_, err := b.objects.List(t.Context(), metav1.ListOptions{})
		return err
	})
	b.run(config)
	return b
}

func (b *bed) run(config *rest.Config) {
	b.t.Helper()
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:istio-operator:istio-operator", Groups: []string{"system:authenticated", "system:serviceaccounts"}}
	c, err := controller.New(controller.Config{
		REST: config, Namespace: "istio-system", Timeout: -1, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)), Render: render.Options{Version: "test"},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bed) eventually(what string, try func() error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("%s: %v", what, err)
		case <-ticker.C:
		}
	}
}

func (b *bed) create(text string) {
	b.t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n"+text), &u.Object); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.objects.Create(b.t.Context(), u, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// state waits until the object's status is that, about its present generation.
func (b *bed) state(name, want, message string) {
	b.t.Helper()
	b.eventually(name+" is "+want, func() error {
		u, err := b.objects.Get(b.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		got, _, _ := unstructured.NestedString(u.Object, "status", "status")
		said, _, _ := unstructured.NestedString(u.Object, "status", "message")
		conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		if got != want || !strings.Contains(said, message) || len(conditions) != 1 || conditions[0].(map[string]any)["observedGeneration"] != u.GetGeneration() {
			return fmt.Errorf("status %v of generation %d", u.Object["status"], u.GetGeneration())
		}
		return nil
	})
}

func (b *bed) patch(name, body string) {
	b.t.Helper()
	if _, err := b.objects.Patch(b.t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) deployed(want bool) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("istiod is there: %t", want), func() error {
		_, err := b.admin.AppsV1().Deployments("istio-system").Get(b.t.Context(), "istiod", metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if (err == nil) != want {
			return errors.New("it is not so")
		}
		return nil
	})
}

// TestOperator: with the rights of its manifest and no others, the operator installs, changes, reports and removes.
func TestOperator(t *testing.T) {
	b := newBed(t)
	b.create("metadata: {name: mesh, namespace: istio-system}\nspec: {profile: ambient}")
	b.state("mesh", "HEALTHY", "")
	b.deployed(true)
	if _, err := b.admin.AppsV1().DaemonSets("istio-system").Get(t.Context(), "ztunnel", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}

	b.patch("mesh", `{"spec":{"components":{"ztunnel":{"enabled":false}},"values":{"pilot":{"env":{"A":"b"}}}}}`)
	b.state("mesh", "HEALTHY", "")
	if _, err := b.admin.AppsV1().DaemonSets("istio-system").Get(t.Context(), "ztunnel", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("ztunnel is still there: %v", err)
	}

	b.patch("mesh", `{"spec":{"components":{"pilott":{}}}}`)
	b.state("mesh", "ERROR", `unknown field "spec.components.pilott"`)
	b.patch("mesh", `{"spec":{"components":{"pilott":null},"values":{"pilot":{"envv":{}}}}}`)
	b.state("mesh", "ERROR", `spec.values.pilot.envv: unknown value; did you mean "env"?`)
	b.patch("mesh", `{"spec":{"values":{"pilot":{"envv":null}}}}`)
	b.state("mesh", "HEALTHY", "")

	b.create("metadata: {name: second, namespace: istio-system}\nspec: {profile: minimal}")
	b.eventually("the second object is refused", func() error {
		u, err := b.objects.Get(t.Context(), "second", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if message, _, _ := unstructured.NestedString(u.Object, "status", "message"); message != "only one object is honoured, the oldest: mesh" {
			return fmt.Errorf("message %q", message)
		}
		return nil
	})
	if err := b.objects.Delete(t.Context(), "second", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}

	if err := b.objects.Delete(t.Context(), "mesh", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.eventually("the object is gone", func() error {
		_, err := b.objects.Get(t.Context(), "mesh", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
	b.deployed(false)
	if _, err := b.admin.CoreV1().Namespaces().Get(t.Context(), "istio-system", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
