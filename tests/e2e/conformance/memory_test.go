package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// memory is an API server without a cluster: it keeps what is applied, and whoever reads an object finds in it what the control plane's
// own translation says of it. It does as a cluster does whose pods start at once.
type memory struct {
	client.WithWatch

	mu      sync.Mutex // guards keys and judged
	keys    []objectKey
	judged  []simulate.Status
	changed bool
}

type objectKey struct {
	schema.GroupVersionKind
	client.ObjectKey
}

func newMemory(t *testing.T) *memory {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, gatewayv1.Install, apiextensionsv1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	m := &memory{changed: true}
	m.WithWatch = fake.NewClientBuilder().WithScheme(s).WithInterceptorFuncs(interceptor.Funcs{
		Get: m.get, List: m.list, Create: m.create, Delete: m.delete, Patch: m.patch, Update: m.update,
	}).Build()
	return m
}

func (m *memory) create(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
	gvk, err := apiutil.GVKForObject(o, c.Scheme())
	if err != nil {
		return err
	}
	o.SetGeneration(1)
	if u, ok := o.(*unstructured.Unstructured); ok {
		if err := withDefaults(u); err != nil {
			return err
		}
	}
	if err := c.Create(ctx, o, options...); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys, m.changed = append(m.keys, objectKey{gvk, client.ObjectKeyFromObject(o)}), true
	return nil
}

func (m *memory) delete(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
	gvk, err := apiutil.GVKForObject(o, c.Scheme())
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := objectKey{gvk, client.ObjectKeyFromObject(o)}
	m.keys, m.changed = slices.DeleteFunc(m.keys, func(k objectKey) bool { return k == key }), true
	return c.Delete(ctx, o, options...)
}

func (m *memory) patch(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, options ...client.PatchOption) error {
	if err := c.Patch(ctx, o, p, options...); err != nil {
		return err
	}
	return m.update(ctx, c, o)
}

func (m *memory) update(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
	o.SetGeneration(o.GetGeneration() + 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = true
	return c.Update(ctx, o, options...)
}

func (m *memory) get(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	if err := c.Get(ctx, key, o, options...); err != nil {
		return err
	}
	return m.fill(ctx, c, o)
}

func (m *memory) list(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
	if err := c.List(ctx, list, options...); err != nil {
		return err
	}
	if gateways, ok := list.(*gatewayv1.GatewayList); ok {
		for i := range gateways.Items {
			if err := m.fill(ctx, c, &gateways.Items[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill gives an object the status that the control plane would write.
func (m *memory) fill(ctx context.Context, c client.WithWatch, o client.Object) error {
	gvk, err := apiutil.GVKForObject(o, c.Scheme())
	if err != nil || gvk.Group != gatewayv1.GroupName {
		return err
	}
	statuses, err := m.statuses(ctx, c)
	if err != nil {
		return err
	}
	for _, s := range statuses {
		if s.Kind != gvk.Kind || s.Namespace != o.GetNamespace() || s.Name != o.GetName() {
			continue
		}
		switch o := o.(type) {
		case *gatewayv1.Gateway:
			return json.Unmarshal(s.Content, &o.Status)
		case *gatewayv1.GatewayClass:
			return json.Unmarshal(s.Content, &o.Status)
		case *gatewayv1.HTTPRoute:
			return json.Unmarshal(s.Content, &o.Status)
		case *gatewayv1.GRPCRoute:
			return json.Unmarshal(s.Content, &o.Status)
		case *gatewayv1.TLSRoute:
			return json.Unmarshal(s.Content, &o.Status)
		}
	}
	return nil
}

func (m *memory) statuses(ctx context.Context, c client.WithWatch) ([]simulate.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.changed {
		return m.judged, nil
	}
	var objects []kube.Object
	for _, key := range m.keys {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(key.GroupVersionKind)
		if err := c.Get(ctx, key.ObjectKey, u); err != nil {
			return nil, fmt.Errorf("%s %s: %w", key.Kind, key.ObjectKey, err)
		}
		text, err := json.Marshal(u.Object)
		if err != nil {
			return nil, err
		}
		// What the control plane does not read, it does not judge.
		if o, _ := kube.DecodeServed(text); o != nil {
			objects = append(objects, o)
		}
	}
	mesh, err := simulate.New(simulate.Settings{}, simulate.NewCompleter().Complete(objects).Objects)
	if err != nil {
		return nil, err
	}
	m.judged, m.changed = mesh.Statuses(), false
	return m.judged, nil
}

// withDefaults gives references to parents what the definitions of routes say, as an API server does.
func withDefaults(u *unstructured.Unstructured) error {
	parents, found, err := unstructured.NestedSlice(u.Object, "spec", "parentRefs")
	if err != nil || !found {
		return err
	}
	for _, p := range parents {
		ref, ok := p.(map[string]any)
		if !ok {
			continue
		}
		for field, value := range map[string]string{"group": gatewayv1.GroupName, "kind": "Gateway"} {
			if _, said := ref[field]; !said {
				ref[field] = value
			}
		}
	}
	return unstructured.SetNestedSlice(u.Object, parents, "spec", "parentRefs")
}
