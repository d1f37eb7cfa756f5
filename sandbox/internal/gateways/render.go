package gateways

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/mesh"
)

const (
	labelGatewayName  = "gateway.networking.k8s.io/gateway-name"
	labelGatewayClass = "gateway.networking.k8s.io/gateway-class-name"
	labelManaged      = "gateway.istio.io/managed"

	annotationServiceType    = "networking.istio.io/service-type"
	annotationName           = "gateway.istio.io/name-override"
	annotationServiceAccount = "gateway.istio.io/service-account"
)

// maxName bounds the name of a Service.
const maxName = 63

// Objects are what a Gateway is deployed as.
type Objects struct {
	ServiceAccount *corev1.ServiceAccount
	Deployment     *appsv1.Deployment
	Service        *corev1.Service
}

// Managed tells whether a Gateway is to be deployed: not one whose addresses say that somebody else has done so.
func Managed(gw *gatewayv1.Gateway) bool {
	switch len(gw.Spec.Addresses) {
	case 0:
		return true
	case 1:
		a := gw.Spec.Addresses[0]
		return a.Type == nil || *a.Type == gatewayv1.IPAddressType
	}
	return false
}

// Render makes the objects of a Gateway that controller deploys. custom holds the overlays of its parameters, by the
// names deployment, service and serviceAccount; it may be nil.
func Render(gw *gatewayv1.Gateway, controller gatewayv1.GatewayController, custom map[string]string) (Objects, error) {
	c, ok := classOf(controller)
	if !ok {
		return Objects{}, fmt.Errorf("controller %q deploys nothing", controller)
	}
	r := renderer{gw: gw, class: c}
	r.name = cmp.Or(gw.Annotations[annotationName], gw.Name+c.suffix)
	if len(r.name) > maxName {
		return Objects{}, fmt.Errorf("metadata.name: %q is too long for a Service: choose one of at most %d characters, or set the annotation %s",
			r.name, maxName-len(c.suffix), annotationName)
	}
	r.account = cmp.Or(gw.Annotations[annotationServiceAccount], r.name)
	r.labels, r.annotations = infrastructure(gw)
	out := Objects{ServiceAccount: r.serviceAccount(), Deployment: r.deployment()}
	var err error
	if out.Service, err = r.service(); err != nil {
		return Objects{}, err
	}
	return overlaid(out, custom)
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
	for _, own := range []string{corev1.LastAppliedConfigAnnotation, annotationServiceType, annotationName, annotationServiceAccount} {
		delete(annotations, own)
	}
	return labels, annotations
}

// renderer has what the objects of one Gateway share.
type renderer struct {
	gw                  *gatewayv1.Gateway
	class               class
	name, account       string
	labels, annotations map[string]string
}

func (r *renderer) meta(name string) metav1.ObjectMeta {
	labels := maps.Clone(r.labels)
	labels[labelGatewayName], labels[labelGatewayClass], labels[labelManaged] = r.gw.Name, string(r.gw.Spec.GatewayClassName), r.class.managed
	yes := true
	return metav1.ObjectMeta{
		Namespace: r.gw.Namespace, Name: name, Labels: labels, Annotations: maps.Clone(r.annotations),
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway", Name: r.gw.Name, UID: types.UID(r.gw.UID), Controller: &yes,
		}},
	}
}

func (r *renderer) serviceAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: r.meta(r.account)}
}

func (r *renderer) selector() map[string]string {
	return map[string]string{labelGatewayName: r.gw.Name}
}

func (r *renderer) deployment() *appsv1.Deployment {
	labels := maps.Clone(r.labels)
	maps.Copy(labels, map[string]string{
		labelGatewayName: r.gw.Name, labelGatewayClass: string(r.gw.Spec.GatewayClassName), labelManaged: r.class.managed,
		// The proxy is in the mesh by itself: nothing captures what it sends and receives.
		"sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none",
		"service.istio.io/canonical-name": r.name, "service.istio.io/canonical-revision": "latest",
	})
	annotations := maps.Clone(r.annotations)
	maps.Copy(annotations, map[string]string{
		"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
	})
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: r.meta(r.name),
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: r.selector()},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations},
				Spec:       mesh.ProxyPod(mesh.Proxy{Role: r.class.role, Namespace: r.gw.Namespace, Name: r.name, ServiceAccount: r.account}),
			},
		},
	}
}

func (r *renderer) service() (*corev1.Service, error) {
	s := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: r.meta(r.name)}
	maps.Copy(s.Annotations, r.class.annotations)
	maps.Copy(s.Annotations, r.annotations)
	s.Spec = corev1.ServiceSpec{Type: r.class.service, Selector: r.selector()}
	switch kind := corev1.ServiceType(r.gw.Annotations[annotationServiceType]); kind {
	case "":
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		s.Spec.Type = kind
	default:
		return nil, fmt.Errorf("annotation %s: %q is none of ClusterIP, NodePort, LoadBalancer", annotationServiceType, kind)
	}
	if len(r.gw.Spec.Addresses) == 1 && s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		s.Spec.LoadBalancerIP = r.gw.Spec.Addresses[0].Value
	}
	add := func(name, protocol string, port int32) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: name, Port: port, TargetPort: intstr.FromInt32(port), Protocol: corev1.ProtocolTCP, AppProtocol: &protocol,
		})
	}
	add("status-port", "tcp", mesh.StatusPort)
	seen := map[int32]bool{mesh.StatusPort: true}
	for i, l := range r.gw.Spec.Listeners {
		port := int32(l.Port)
		if l.Protocol == gatewayv1.UDPProtocolType || seen[port] && port != mesh.StatusPort {
			continue
		}
		if port == mesh.StatusPort {
			return nil, fmt.Errorf("spec.listeners[%d].port: %d is the gateway's own port for its status: choose another", i, port)
		}
		seen[port] = true
		add(portName(l), strings.ToLower(string(l.Protocol)), port)
	}
	return s, nil
}

// portName is a listener's name where it can be one of a Service's ports.
func portName(l gatewayv1.Listener) string {
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' {
			return c
		}
		return '-'
	}, strings.ToLower(string(l.Name)))
	if name = strings.Trim(name, "-"); name == "" || len(name) > maxName {
		return fmt.Sprintf("port-%d", l.Port)
	}
	return name
}
