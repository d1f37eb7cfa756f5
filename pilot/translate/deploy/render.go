package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Labels of the objects.
const (
	LabelGatewayName  = "gateway.networking.k8s.io/gateway-name"
	LabelGatewayClass = "gateway.networking.k8s.io/gateway-class-name"
	LabelManaged      = "gateway.istio.io/managed"
	// LabelRevision is of Gateways: whose business they are.
	LabelRevision = "istio.io/rev"
	LabelTag      = "istio.io/tag"
	// LabelClassDefaults is of ConfigMaps in the control plane's namespace with parameters for all Gateways of a class.
	LabelClassDefaults = "gateway.istio.io/defaults-for-class"
	labelNetwork       = "topology.istio.io/network"
)

// Annotations of Gateways.
const (
	annotationServiceType    = "networking.istio.io/service-type"
	annotationAddressType    = "networking.istio.io/address-type"
	annotationName           = "gateway.istio.io/name-override"
	annotationServiceAccount = "gateway.istio.io/service-account"
	annotationVersion        = "gateway.istio.io/controller-version"
	annotationProxyConfig    = "proxy.istio.io/config"
)

// maxName bounds the name of a Service, and the value of a label.
const maxName = 63

// Request is what Render needs to know.
type Request struct {
	Gateway *gatewayv1.Gateway
	// Listeners are those that ListenerSets add to the Gateway's own: see gateway.SetListeners.
	Listeners  []gatewayv1.Listener
	Controller gatewayv1.GatewayController
	Values     Values
	// Parameters are the data of the ConfigMap that spec.infrastructure.parametersRef names. They come on top of Values.Classes.
	Parameters map[string]string
}

// Objects are what a Gateway is deployed as.
type Objects struct {
	ServiceAccount *corev1.ServiceAccount
	Deployment     *appsv1.Deployment
	Service        *corev1.Service
	// Autoscaler and Disruption are nil unless the parameters ask for them.
	Autoscaler *autoscalingv2.HorizontalPodAutoscaler
	Disruption *policyv1.PodDisruptionBudget
}

// Object is any of them.
type Object interface {
	metav1.Object
	runtime.Object
}

// All are the objects that exist, in the order in which they are best made.
func (o Objects) All() []Object {
	out := []Object{o.ServiceAccount, o.Service, o.Deployment}
	if o.Autoscaler != nil {
		out = append(out, o.Autoscaler)
	}
	if o.Disruption != nil {
		out = append(out, o.Disruption)
	}
	return out
}

// Names are those of a Gateway's objects.
type Names struct{ Deployment, ServiceAccount string }

// NamesOf are the names that the objects of a Gateway have, whatever else it says.
func NamesOf(gw *gatewayv1.Gateway, controller gatewayv1.GatewayController) Names {
	c, _ := classOf(controller)
	name := gw.Name
	if c.suffix {
		name += "-" + string(gw.Spec.GatewayClassName)
	}
	name = cmp.Or(gw.Annotations[annotationName], name)
	return Names{Deployment: name, ServiceAccount: cmp.Or(gw.Annotations[annotationServiceAccount], name)}
}

// Render makes the objects of a Gateway.
func Render(in Request) (Objects, error) {
	c, ok := classOf(in.Controller)
	if !ok {
		return Objects{}, fmt.Errorf("controller %q deploys nothing", in.Controller)
	}
	r := renderer{gw: in.Gateway, added: in.Listeners, class: c, values: in.Values.withDefaults(), names: NamesOf(in.Gateway, in.Controller)}
	if err := r.checkNames(); err != nil {
		return Objects{}, err
	}
	r.labels, r.annotations = infrastructure(in.Gateway)
	out := Objects{ServiceAccount: r.serviceAccount()}
	var deploymentErr, serviceErr error
	out.Deployment, deploymentErr = r.deployment()
	out.Service, serviceErr = r.service()
	if err := errors.Join(deploymentErr, serviceErr); err != nil {
		return Objects{}, err
	}
	return r.overlaid(out, in.Parameters)
}

// renderer has what the objects of one Gateway share.
type renderer struct {
	gw                  *gatewayv1.Gateway
	added               []gatewayv1.Listener
	class               class
	values              Values
	names               Names
	labels, annotations map[string]string
}

func (r *renderer) checkNames() error {
	if len(r.gw.Name) > maxName {
		return fmt.Errorf("metadata.name: %q is longer than the %d characters that a label may have: choose a shorter one", r.gw.Name, maxName)
	}
	if len(r.names.Deployment) > maxName {
		return fmt.Errorf("metadata.name: %q is too long for a Service, which may have %d characters: choose a shorter one, or set the annotation %s",
			r.names.Deployment, maxName, annotationName)
	}
	return nil
}

// infrastructure are the labels and annotations for the objects: those that the specification names or else the Gateway's.
func infrastructure(gw *gatewayv1.Gateway) (labels, annotations map[string]string) {
	labels, annotations = map[string]string{}, map[string]string{}
	in := gw.Spec.Infrastructure
	if in != nil && in.Labels != nil {
		for key, value := range in.Labels {
			labels[string(key)] = string(value)
		}
	} else {
		maps.Copy(labels, gw.Labels)
	}
	if in != nil && in.Annotations != nil {
		for key, value := range in.Annotations {
			annotations[string(key)] = string(value)
		}
	} else {
		maps.Copy(annotations, gw.Annotations)
	}
	for _, own := range []string{
		corev1.LastAppliedConfigAnnotation, annotationServiceType, annotationAddressType, annotationName, annotationServiceAccount, annotationVersion,
	} {
		delete(annotations, own)
	}
	return labels, annotations
}

func (r *renderer) meta(name string) metav1.ObjectMeta {
	labels := maps.Clone(r.labels)
	maps.Copy(labels, r.ownLabels())
	yes := true
	return metav1.ObjectMeta{
		Namespace: r.gw.Namespace, Name: name, Labels: labels, Annotations: maps.Clone(r.annotations),
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway", Name: r.gw.Name, UID: r.gw.UID, Controller: &yes,
		}},
	}
}

func (r *renderer) ownLabels() map[string]string {
	return map[string]string{
		LabelGatewayName: r.gw.Name, LabelGatewayClass: string(r.gw.Spec.GatewayClassName), LabelManaged: r.class.managed,
	}
}

func (r *renderer) selector() map[string]string {
	return map[string]string{LabelGatewayName: r.gw.Name}
}

func (r *renderer) serviceAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: r.meta(r.names.ServiceAccount)}
}

func (r *renderer) deployment() (*appsv1.Deployment, error) {
	labels := map[string]string{
		// The proxy is in the mesh by itself: nothing captures what it sends and receives.
		"sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none",
		"service.istio.io/canonical-name": r.names.Deployment, "service.istio.io/canonical-revision": "latest",
	}
	maps.Copy(labels, r.labels)
	maps.Copy(labels, r.ownLabels())
	annotations := maps.Clone(r.annotations)
	maps.Copy(annotations, map[string]string{
		LabelRevision:          r.values.Revision,
		"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
	})
	spec, err := PodSpec(Proxy{
		Role: r.class.role, Namespace: r.gw.Namespace, Name: r.names.Deployment, ServiceAccount: r.names.ServiceAccount,
		Network: r.labels[labelNetwork], Config: r.annotations[annotationProxyConfig],
	}, r.values)
	if err != nil {
		return nil, err
	}
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: r.meta(r.names.Deployment),
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: r.selector()},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations}, Spec: spec},
		},
	}, nil
}

func (r *renderer) autoscaler() *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}, ObjectMeta: r.meta(r.names.Deployment),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: r.names.Deployment},
			MaxReplicas:    1,
		},
	}
}

func (r *renderer) disruption() *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: r.meta(r.names.Deployment),
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: r.selector()}},
	}
}
