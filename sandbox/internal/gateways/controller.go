// Package gateways deploys Gateways of the Gateway API, as the mesh's deployment controller does in a cluster: for each one
// of a class of ours a ServiceAccount, a Deployment and a Service, which go when it does.
//
// What they are deployed as is the control plane's own translation; a Controller keeps the store in line with it, and writes the
// Gateways' status.
package gateways

import (
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/merge"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/mesh"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// Controller deploys the Gateways of a store. Not safe for concurrent use.
type Controller struct {
	store *store.Store
	now   func() time.Time
	// last is what each object was rendered as, by its UID: what others have changed since stays.
	last  map[types.UID]map[string]any
	wrote bool
}

// New returns a controller for a store.
func New(s *store.Store) *Controller {
	return &Controller{store: s, now: time.Now, last: map[types.UID]map[string]any{}}
}

// Reconcile acts on what has changed, and says whether it has written to the store.
func (c *Controller) Reconcile() (wrote bool, err error) {
	c.wrote = false
	problems := []error{c.classes()}
	for _, u := range store.List[*unstructured.Unstructured](c.store) {
		gvk := u.GroupVersionKind()
		if gvk.Group != gatewayv1.GroupName || gvk.Kind != "Gateway" {
			continue
		}
		if err := c.gateway(u); err != nil {
			problems = append(problems, fmt.Errorf("%s %s/%s: %w", gvk.Kind, u.GetNamespace(), u.GetName(), err))
		}
	}
	c.forget()
	return c.wrote, errors.Join(problems...)
}

func (c *Controller) put(o manifest.Object) error {
	c.wrote = true
	return c.store.Put(o)
}

// classes makes the GatewayClasses, also after somebody has deleted one.
func (c *Controller) classes() error {
	var problems []error
	for _, class := range deploy.BuiltinClasses() {
		if _, ok := c.store.Get(store.Key{Group: gatewayv1.GroupName, Kind: "GatewayClass", Name: class.Name}); ok {
			continue
		}
		class.Status.Conditions = []metav1.Condition{{
			Type: string(gatewayv1.GatewayClassConditionStatusAccepted), Status: metav1.ConditionTrue,
			Reason: string(gatewayv1.GatewayClassReasonAccepted), Message: "Handled by the mesh's gateway controller",
			LastTransitionTime: metav1.NewTime(c.now().Truncate(time.Second)),
		}}
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(class)
		if err == nil {
			err = c.put(&unstructured.Unstructured{Object: fields})
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// controllerOf is who handles the Gateways of a class.
func (c *Controller) controllerOf(class string) gatewayv1.GatewayController {
	o, ok := c.store.Get(store.Key{Group: gatewayv1.GroupName, Kind: "GatewayClass", Name: class})
	u, untyped := o.(*unstructured.Unstructured)
	if !ok || !untyped {
		return ""
	}
	name, _, _ := unstructured.NestedString(u.Object, "spec", "controllerName")
	return gatewayv1.GatewayController(name)
}

func (c *Controller) gateway(u *unstructured.Unstructured) error {
	gw := &gatewayv1.Gateway{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, gw); err != nil {
		return err
	}
	controller := c.controllerOf(string(gw.Spec.GatewayClassName))
	if !deploy.Deploys(controller) || !deploy.Managed(gw) {
		return nil
	}
	state := State{}
	var custom map[string]string
	if custom, state.Problem = c.parameters(gw); state.Problem == nil {
		var objects deploy.Objects
		in := deploy.Request{
			Gateway: gw, Listeners: gateway.SetListeners(c.listenerSets(), gw), Controller: controller, Values: mesh.ProxyValues(), Parameters: custom,
		}
		if objects, state.Problem = deploy.Render(in); state.Problem == nil {
			state.Problem = c.deploy(gw, objects)
			state.Service, state.Ready = c.look(gw, objects)
		}
	}
	return errors.Join(state.Problem, c.writeStatus(u, gw, Status(gw, controller, state, c.now())))
}

// listenerSets are all that there are, and the namespaces by whose labels Gateways take them. What cannot be read is left out: the control
// plane says so.
func (c *Controller) listenerSets() gateway.ListenerSetsAmong {
	out := gateway.ListenerSetsAmong{Namespaces: map[string]*corev1.Namespace{}}
	for _, ns := range store.List[*corev1.Namespace](c.store) {
		out.Namespaces[ns.Name] = ns
	}
	for _, u := range store.List[*unstructured.Unstructured](c.store) {
		if gvk := u.GroupVersionKind(); gvk.Group != gatewayv1.GroupName || gvk.Kind != gateway.KindListenerSet {
			continue
		}
		set := &gatewayv1.ListenerSet{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, set); err == nil {
			out.Sets = append(out.Sets, set)
		}
	}
	return out
}

// parameters reads the ConfigMap that customises a Gateway.
func (c *Controller) parameters(gw *gatewayv1.Gateway) (map[string]string, error) {
	if gw.Spec.Infrastructure == nil || gw.Spec.Infrastructure.ParametersRef == nil {
		return nil, nil
	}
	ref := gw.Spec.Infrastructure.ParametersRef
	if ref.Group != "" || ref.Kind != "ConfigMap" {
		return nil, fmt.Errorf("spec.infrastructure.parametersRef: %s %q: want a ConfigMap", ref.Kind, ref.Group)
	}
	o, ok := c.store.Get(store.Key{Kind: "ConfigMap", Namespace: gw.Namespace, Name: ref.Name})
	cm, isMap := o.(*corev1.ConfigMap)
	if !ok || !isMap {
		return nil, fmt.Errorf("spec.infrastructure.parametersRef: ConfigMap %s does not exist", ref.Name)
	}
	return cm.Data, nil
}

// deploy stores what has been rendered. Objects of the same names that are somebody else's are left alone.
func (c *Controller) deploy(gw *gatewayv1.Gateway, objects deploy.Objects) error {
	var problems []error
	for _, next := range objects.All() {
		old, exists := c.store.Get(store.KeyOf(next))
		if exists && !metav1.IsControlledBy(old, gw) {
			if _, account := next.(*corev1.ServiceAccount); !account { // one that exists may be used
				problems = append(problems, fmt.Errorf("%s %s exists, and is not this Gateway's: delete it, or choose another name",
					next.GetObjectKind().GroupVersionKind().Kind, next.GetName()))
			}
			continue
		}
		problems = append(problems, c.keep(old, exists, next))
	}
	return errors.Join(problems...)
}

// keep stores one object, with what others have changed of it.
func (c *Controller) keep(old manifest.Object, exists bool, next manifest.Object) error {
	intent, err := merge.Intent(next)
	if err != nil {
		return err
	}
	if !exists {
		if err := c.put(next); err != nil {
			return err
		}
		c.last[next.GetUID()] = intent
		return nil
	}
	merged, err := merge.Apply(c.last[old.GetUID()], old, next)
	if err != nil {
		return err
	}
	c.last[old.GetUID()] = intent
	if equality.Semantic.DeepEqual(old, merged) {
		return nil
	}
	return c.put(merged)
}

// look returns a Gateway's Service, and how many of its pods are ready.
func (c *Controller) look(gw *gatewayv1.Gateway, objects deploy.Objects) (*corev1.Service, int) {
	o, _ := c.store.Get(store.KeyOf(objects.Service))
	service, ok := o.(*corev1.Service)
	if !ok || !metav1.IsControlledBy(service, gw) {
		return nil, 0
	}
	d, _ := c.store.Get(store.KeyOf(objects.Deployment))
	deployment, ok := d.(*appsv1.Deployment)
	if !ok {
		return service, 0
	}
	return service, int(deployment.Status.ReadyReplicas)
}

func (c *Controller) writeStatus(u *unstructured.Unstructured, gw *gatewayv1.Gateway, status gatewayv1.GatewayStatus) error {
	if equality.Semantic.DeepEqual(gw.Status, status) {
		return nil
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return err
	}
	c.wrote = true
	return store.Modify(c.store, store.KeyOf(u), u.GetUID(), func(u *unstructured.Unstructured) {
		u.Object["status"] = fields
	})
}

// forget lets go of objects that are gone.
func (c *Controller) forget() {
	alive := map[types.UID]bool{}
	for _, o := range c.store.All() {
		alive[o.GetUID()] = true
	}
	for uid := range c.last {
		if !alive[uid] {
			delete(c.last, uid)
		}
	}
}
