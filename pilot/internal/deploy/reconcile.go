package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

// valuesKey is where in its ConfigMap the values of the control plane's chart are.
const valuesKey = "values"

// foreignInterval is how often the Service is looked at that a Gateway names as its own; it is not watched.
const foreignInterval = 30 * time.Second

// refused is a problem of what people have written: another try does not help before they change it.
type refused struct{ error }

func (e refused) Unwrap() error { return e.error }

// reconcile brings a Gateway's objects and addresses in line with it. A key without a namespace is a GatewayClass. After again,
// if it is not 0, it is to be looked at anew.
func (r *run) reconcile(ctx context.Context, key types.NamespacedName) (again time.Duration, err error) {
	if key.Namespace == "" {
		return 0, r.keepClasses(ctx)
	}
	gw, err := r.gatewayOf(key)
	if err != nil {
		return 0, err
	}
	if gw == nil || gw.DeletionTimestamp != nil {
		r.forget(key)
		return 0, nil // what it owned goes with it
	}
	if !deploy.IsOfRevision(r.revisionLabels(gw), r.cfg.Revision, r.tags()) {
		return 0, nil
	}
	controller := r.controllerOf(string(gw.Spec.GatewayClassName))
	switch {
	case controller == deploy.ControllerUnmanaged:
		return 0, errors.Join(r.prune(ctx, gw, nil), r.writeAddresses(ctx, gw, asSpecified(gw), nil))
	case !deploy.Deploys(controller):
		err := r.prune(ctx, gw, nil)
		if meta.IsStatusConditionFalse(gw.Status.Conditions, ConditionDeployed) {
			err = errors.Join(err, r.writeAddresses(ctx, gw, nil, nil))
		}
		return 0, err
	case !deploy.Managed(gw):
		addresses, err := r.foreignAddresses(ctx, gw)
		return foreignInterval, errors.Join(err, r.prune(ctx, gw, nil), r.writeAddresses(ctx, gw, addresses, nil))
	}
	return 0, r.deploy(ctx, gw, controller)
}

// revisionLabels are those that say whose business a Gateway is: its own, else its namespace's.
func (r *run) revisionLabels(gw *gatewayv1.Gateway) map[string]string {
	if gw.Labels[deploy.LabelRevision] != "" {
		return gw.Labels
	}
	if o, err := r.factory.namespace.Get(gw.Namespace); err == nil {
		if m, ok := o.(metav1.Object); ok {
			return m.GetLabels()
		}
	}
	return nil
}

// deploy makes the objects of a Gateway that is deployed here.
func (r *run) deploy(ctx context.Context, gw *gatewayv1.Gateway, controller gatewayv1.GatewayController) error {
	objects, err := r.render(ctx, gw, controller)
	if err == nil {
		err = r.applyAll(ctx, gw, objects)
	}
	var problem refused
	switch {
	case errors.As(err, &problem):
		r.cfg.Log.Warn("a gateway cannot be deployed as it asks to be", "gateway", gw.Namespace+"/"+gw.Name, "error", problem.error)
	case err != nil:
		return err
	}
	names := deploy.NamesOf(gw, controller)
	service := r.serviceOf(gw, names)
	addresses := deploy.Addresses(gw, controller, service, r.cfg.Domain)
	if len(gw.Status.Addresses) == 0 && r.readyReplicas(gw, names) == 0 {
		// Nobody is sent to a Gateway that does not serve yet. It keeps its addresses when its pods go: who is bound to a waypoint
		// must not get past it because it is down.
		addresses = nil
	}
	return r.writeAddresses(ctx, gw, addresses, problem.error)
}

func (r *run) render(ctx context.Context, gw *gatewayv1.Gateway, controller gatewayv1.GatewayController) (deploy.Objects, error) {
	values, err := r.values()
	if err != nil {
		return deploy.Objects{}, err
	}
	parameters, err := r.parameters(ctx, gw)
	if err != nil {
		return deploy.Objects{}, err
	}
	objects, err := deploy.Render(deploy.Request{
		Gateway: gw, Listeners: r.cfg.Listeners(types.NamespacedName{Namespace: gw.Namespace, Name: gw.Name}),
		Controller: controller, Values: values, Parameters: parameters,
	})
	if err != nil {
		return deploy.Objects{}, refused{err}
	}
	return objects, nil
}

// valuesName is that of the ConfigMap with the values of the control plane's chart.
func (r *run) valuesName() string {
	if r.cfg.Revision == "" || r.cfg.Revision == "default" {
		return "istio-sidecar-injector"
	}
	return "istio-sidecar-injector-" + r.cfg.Revision
}

// values are those of the mesh configuration, with those of the chart and of the classes over them.
func (r *run) values() (deploy.Values, error) {
	out := r.cfg.Values()
	if out.Revision == "" {
		out.Revision = r.cfg.Revision
	}
	if out.Discovery == "" {
		out.Discovery = deploy.Discovery(r.cfg.Revision, r.cfg.Namespace)
	}
	if out.Domain == "" {
		out.Domain = r.cfg.Domain
	}
	lister := r.factory.system.Core().V1().ConfigMaps().Lister().ConfigMaps(r.cfg.Namespace)
	if cm, err := lister.Get(r.valuesName()); err == nil {
		if out, err = out.WithChart([]byte(cm.Data[valuesKey])); err != nil {
			return out, fmt.Errorf("ConfigMap %s/%s: %w", cm.Namespace, cm.Name, err)
		}
	}
	selector, err := labels.Parse(deploy.LabelClassDefaults)
	if err != nil {
		return out, err
	}
	defaults, err := lister.List(selector)
	if err != nil {
		return out, err
	}
	slices.SortFunc(defaults, func(a, b *corev1.ConfigMap) int {
		if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
			return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) // the oldest one wins
		}
		return slices.Compare([]string{b.Name}, []string{a.Name})
	})
	tags := r.tags()
	for _, cm := range defaults {
		if deploy.IsOfRevision(cm.Labels, r.cfg.Revision, tags) {
			out = out.WithClass(cm.Labels[deploy.LabelClassDefaults], cm.Data)
		}
	}
	return out, nil
}

// parameters reads the ConfigMap that customises a Gateway. Only that it exists is watched, its content is fetched.
func (r *run) parameters(ctx context.Context, gw *gatewayv1.Gateway) (map[string]string, error) {
	if gw.Spec.Infrastructure == nil || gw.Spec.Infrastructure.ParametersRef == nil {
		return nil, nil
	}
	ref := gw.Spec.Infrastructure.ParametersRef
	if ref.Group != "" || ref.Kind != "ConfigMap" {
		return nil, refused{fmt.Errorf("spec.infrastructure.parametersRef: kind %s of group %q is not supported: name a ConfigMap of group \"\"", ref.Kind, ref.Group)}
	}
	cm, err := r.client.CoreV1().ConfigMaps(gw.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, refused{fmt.Errorf("spec.infrastructure.parametersRef: ConfigMap %s does not exist in namespace %s: create it", ref.Name, gw.Namespace)}
	}
	if err != nil {
		return nil, fmt.Errorf("read the parameters: %w", err)
	}
	return maps.Clone(cm.Data), nil
}

func (r *run) serviceOf(gw *gatewayv1.Gateway, names deploy.Names) *corev1.Service {
	s, err := r.factory.managed.Core().V1().Services().Lister().Services(gw.Namespace).Get(names.Deployment)
	if err != nil || !owned(s, gw) {
		return nil
	}
	return s
}

func (r *run) readyReplicas(gw *gatewayv1.Gateway, names deploy.Names) int32 {
	d, err := r.factory.managed.Apps().V1().Deployments().Lister().Deployments(gw.Namespace).Get(names.Deployment)
	if err != nil || !owned(d, gw) {
		return 0
	}
	return d.Status.ReadyReplicas
}

// keepClasses makes the GatewayClasses that there are by default. Ones that exist are their owners' business.
func (r *run) keepClasses(ctx context.Context) error {
	var problems []error
	for _, class := range deploy.BuiltinClasses() {
		if _, err := r.factory.class.Get(class.Name); err == nil {
			continue
		}
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(class)
		if err != nil {
			return err
		}
		delete(fields, "status")
		_, err = r.dynamic.Resource(gatewayClasses()).Create(ctx, &unstructured.Unstructured{Object: fields}, metav1.CreateOptions{FieldManager: fieldManager})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			problems = append(problems, fmt.Errorf("make GatewayClass %s: %w", class.Name, err))
		}
	}
	return errors.Join(problems...)
}
