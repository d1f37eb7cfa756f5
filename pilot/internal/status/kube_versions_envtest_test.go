//go:build envtest

package status

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// olderCRD serves TCPRoute as releases of the Gateway API did for years.
const olderCRD = `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: tcproutes.gateway.networking.k8s.io,
  annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-sigs/gateway-api/pull/1"}},
  spec: {group: gateway.networking.k8s.io, scope: Namespaced, names: {kind: TCPRoute, plural: tcproutes, singular: tcproute, listKind: TCPRouteList},
    versions: [{name: v1alpha2, served: true, storage: true, subresources: {status: {}},
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`

// TestStatusInTheVersionThatIsServed: a cluster whose Gateway API is older gets its statuses too.
func TestStatusInTheVersionThatIsServed(t *testing.T) {
	k, err := NewKube(KubeConfig{REST: kubetest.Start(t, kubetest.WithoutCRDs()), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t, k}
	b.apply(olderCRD)
	older := schema.GroupVersionKind{Group: groupGateway, Version: "v1alpha2", Kind: "TCPRoute"}
	route := &unstructured.Unstructured{}
	wait.Until(t, time.Minute, "the kind is served", func() bool {
		const text = `{"apiVersion":"gateway.networking.k8s.io/v1alpha2","kind":"TCPRoute","metadata":{"name":"r","namespace":"default"},"spec":{}}`
		client := k.client(object{older, "default", "r"})
		route, err = client.Patch(t.Context(), "r", types.ApplyPatchType, []byte(text), metav1.PatchOptions{FieldManager: "other"})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}, func() string { return fmt.Sprint(err) })
	if route.GetName() != "r" {
		t.Fatalf("made %v", route)
	}
	newest := schema.GroupVersionKind{Group: groupGateway, Version: "v1", Kind: "TCPRoute"}
	content := `{parents: [{controllerName: istio.io/gateway-controller, parentRef: {name: g}, conditions: [` + condition("Accepted", "True", "Accepted") + `]}]}`
	b.changed(newest, "r", content)
	defer b.start()()
	b.has(older, "r", `{parents: [{controllerName: istio.io/gateway-controller, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: g}, conditions: [`+plain("Accepted", "True", "Accepted")+`]}]}`)
	b.changed(newest, "r", "")
	b.has(older, "r", `{parents: []}`)
}
