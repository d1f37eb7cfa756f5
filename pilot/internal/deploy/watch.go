package deploy

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

// apiInterval is how often it is looked whether the Gateway API is installed.
const apiInterval = 2 * time.Second

func gateways() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gateways"}
}

func gatewayClasses() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gatewayclasses"}
}

// waitForAPI returns once Gateways and GatewayClasses are served.
func (c *Controller) waitForAPI(ctx context.Context) error {
	told := false
	for {
		list, err := c.client.Discovery().ServerResourcesForGroupVersion(gatewayv1.GroupVersion.String())
		found := 0
		if err == nil {
			for _, r := range list.APIResources {
				if r.Name == "gateways" || r.Name == "gatewayclasses" {
					found++
				}
			}
		}
		if found == 2 {
			return nil
		}
		if !told {
			told = true
			c.cfg.Log.Info("no Gateways are deployed until the Gateway API is installed: its custom resource definitions do not exist")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(apiInterval):
		}
	}
}

// run is one time of being the leader.
type run struct {
	*Controller
	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName]
	factory struct {
		gateways  dynamicinformer.DynamicSharedInformerFactory
		managed   informers.SharedInformerFactory
		system    informers.SharedInformerFactory
		metadata  metadatainformer.SharedInformerFactory
		handlers  []cache.InformerSynced
		gateway   cache.GenericLister
		class     cache.GenericLister
		namespace cache.GenericLister
		mutating  cache.GenericLister
		validator cache.GenericLister
	}

	mu      sync.Mutex
	applied map[string]string // guarded by mu: kind/namespace/name → hash of what was applied last
}

// strip drops what nobody here reads.
func strip(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// stripMetadata keeps the labels only.
func stripMetadata(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
		m.SetOwnerReferences(nil)
	}
	return o, nil
}

// watch starts the informers. Each event leads to the queue.
func (r *run) watch(ctx context.Context) error {
	f := &r.factory
	f.gateways = dynamicinformer.NewFilteredDynamicSharedInformerFactory(r.dynamic, 0, metav1.NamespaceAll, nil)
	f.managed = informers.NewSharedInformerFactoryWithOptions(r.client, 0, informers.WithTransform(strip), informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = deploy.LabelManaged + "," + deploy.LabelGatewayName
	}))
	f.system = informers.NewSharedInformerFactoryWithOptions(r.client, 0, informers.WithTransform(strip), informers.WithNamespace(r.cfg.Namespace))
	f.metadata = metadatainformer.NewSharedInformerFactoryWithOptions(r.metadata, 0, metadatainformer.WithTransform(stripMetadata))

	gateway, class := f.gateways.ForResource(gateways()), f.gateways.ForResource(gatewayClasses())
	namespace := f.metadata.ForResource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	mutating, validating := f.metadata.ForResource(webhooks("mutatingwebhookconfigurations")), f.metadata.ForResource(webhooks("validatingwebhookconfigurations"))
	f.gateway, f.class, f.namespace = gateway.Lister(), class.Lister(), namespace.Lister()
	f.mutating, f.validator = mutating.Lister(), validating.Lister()
	apps, core := f.managed.Apps().V1(), f.managed.Core().V1()
	for _, i := range []struct {
		informer cache.SharedIndexInformer
		on       func(any)
	}{
		{gateway.Informer(), r.onGateway},
		{class.Informer(), r.onClass},
		{namespace.Informer(), r.onNamespace},
		{f.metadata.ForResource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Informer(), r.onConfigMap},
		{f.system.Core().V1().ConfigMaps().Informer(), r.onSystemConfigMap},
		{f.system.Core().V1().Services().Informer(), r.onTag},
		{mutating.Informer(), r.onTag},
		{validating.Informer(), r.onTag},
		{apps.Deployments().Informer(), r.onManaged},
		{core.Services().Informer(), r.onManaged},
		{core.ServiceAccounts().Informer(), r.onManaged},
		{f.managed.Autoscaling().V2().HorizontalPodAutoscalers().Informer(), r.onManaged},
		{f.managed.Policy().V1().PodDisruptionBudgets().Informer(), r.onManaged},
	} {
		if i.informer == gateway.Informer() || i.informer == class.Informer() {
			if err := i.informer.SetTransform(strip); err != nil {
				return fmt.Errorf("watch gateways: %w", err)
			}
		}
		registration, err := i.informer.AddEventHandler(handler(i.on))
		if err != nil {
			return fmt.Errorf("watch what gateways are deployed as: %w", err)
		}
		f.handlers = append(f.handlers, registration.HasSynced)
	}
	f.gateways.Start(ctx.Done())
	f.managed.Start(ctx.Done())
	f.system.Start(ctx.Done())
	f.metadata.Start(ctx.Done())
	return nil
}

// synced waits until everything that exists has been seen; false when ctx ends first.
func (r *run) synced(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), r.factory.handlers...)
}

// stop ends the informers and waits for them.
func (r *run) stop(cancel context.CancelFunc) {
	cancel()
	r.queue.ShutDown()
	r.factory.gateways.Shutdown()
	r.factory.managed.Shutdown()
	r.factory.system.Shutdown()
	r.factory.metadata.Shutdown()
}

// handler calls on with the object of every event, as it is now or was last.
func handler(on func(any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    on,
		UpdateFunc: func(_, o any) { on(o) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			on(o)
		},
	}
}

func (r *run) onGateway(o any) {
	if m, ok := o.(metav1.Object); ok {
		r.queue.Add(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()})
	}
}

// onManaged enqueues the Gateway that an object is of.
func (r *run) onManaged(o any) {
	if m, ok := o.(metav1.Object); ok {
		r.queue.Add(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetLabels()[deploy.LabelGatewayName]})
	}
}

func (r *run) onClass(o any) {
	m, ok := o.(metav1.Object)
	if !ok {
		return
	}
	r.queue.Add(types.NamespacedName{Name: m.GetName()}) // one of ours that somebody deletes comes back
	r.enqueue(func(gw *unstructured.Unstructured) bool {
		class, _, _ := unstructured.NestedString(gw.Object, "spec", "gatewayClassName")
		return class == m.GetName()
	})
}

func (r *run) onNamespace(o any) {
	if m, ok := o.(metav1.Object); ok {
		r.enqueue(func(gw *unstructured.Unstructured) bool { return gw.GetNamespace() == m.GetName() })
	}
}

// onConfigMap enqueues the Gateways that a ConfigMap is the parameters of.
func (r *run) onConfigMap(o any) {
	m, ok := o.(metav1.Object)
	if !ok {
		return
	}
	r.enqueue(func(gw *unstructured.Unstructured) bool {
		name, _, _ := unstructured.NestedString(gw.Object, "spec", "infrastructure", "parametersRef", "name")
		return name == m.GetName() && gw.GetNamespace() == m.GetNamespace()
	})
}

// onSystemConfigMap enqueues all Gateways when the values of the installation or the parameters of a class change.
func (r *run) onSystemConfigMap(o any) {
	if m, ok := o.(metav1.Object); ok && (m.GetName() == r.valuesName() || m.GetLabels()[deploy.LabelClassDefaults] != "") {
		r.enqueueAll()
	}
}

func (r *run) enqueueAll() { r.enqueue(func(*unstructured.Unstructured) bool { return true }) }

func (r *run) enqueue(concerned func(*unstructured.Unstructured) bool) {
	all, err := r.factory.gateway.List(labels.Everything())
	if err != nil {
		return // a lister of a cache has no errors
	}
	for _, o := range all {
		if gw, ok := o.(*unstructured.Unstructured); ok && concerned(gw) {
			r.queue.Add(types.NamespacedName{Namespace: gw.GetNamespace(), Name: gw.GetName()})
		}
	}
}

// gatewayOf returns a Gateway as it was seen last; nil when there is none.
func (r *run) gatewayOf(key types.NamespacedName) (*gatewayv1.Gateway, error) {
	o, err := r.factory.gateway.ByNamespace(key.Namespace).Get(key.Name)
	if err != nil {
		return nil, nil //nolint:nilerr // a lister's only error is that there is none
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil, nil
	}
	gw := &gatewayv1.Gateway{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, gw); err != nil {
		return nil, fmt.Errorf("read the Gateway: %w", err)
	}
	return gw, nil
}

// controllerOf is who handles the Gateways of a class.
func (r *run) controllerOf(class string) gatewayv1.GatewayController {
	o, err := r.factory.class.Get(class)
	u, ok := o.(*unstructured.Unstructured)
	if err != nil || !ok {
		return ""
	}
	name, _, _ := unstructured.NestedString(u.Object, "spec", "controllerName")
	return gatewayv1.GatewayController(name)
}
