package collect

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Assumed returns what every installation has, for files that are analyzed without a mesh: the classes of gateways, the control plane's
// namespace, and the ingress and egress gateways.
func Assumed(istioNamespace string) []*analysis.Resource {
	var out []*analysis.Resource
	add := func(kind schema.GroupVersionKind, o kube.Object) {
		r := analysis.NewResource(kind, o)
		r.Assumed = true
		out = append(out, r)
	}
	for _, class := range deploy.BuiltinClasses() {
		add(kube.GatewayClassGVK(), class)
	}
	for _, name := range []string{istioNamespace, "default", "kube-system"} {
		add(kube.NamespaceGVK(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for _, name := range []string{"istio-ingressgateway", "istio-egressgateway"} {
		labels := map[string]string{"app": name, "istio": name[len("istio-"):]}
		meta := metav1.ObjectMeta{Namespace: istioNamespace, Name: name, Labels: labels}
		add(kube.ServiceGVK(), &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{
			{Name: "status-port", Port: 15021},
			{Name: "http2", Port: 80, TargetPort: intstr.FromInt32(8080)},
			{Name: "https", Port: 443, TargetPort: intstr.FromInt32(8443)},
			{Name: "tls", Port: 15443},
		}}})
		add(kube.PodGVK(), &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{ServiceAccountName: name + "-service-account", Containers: []corev1.Container{{Name: "istio-proxy"}}}})
	}
	return out
}
