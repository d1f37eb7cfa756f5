package mesh

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
)

// IngressName is the name of the ingress gateway's Deployment and Service.
const IngressName = "istio-ingressgateway"

// Ingress is the classic ingress gateway: the one that Gateways select by the label istio: ingressgateway.
func Ingress() ([]manifest.Object, error) {
	const account = IngressName + "-service-account"
	selector := map[string]string{"app": IngressName, "istio": "ingressgateway"}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: Namespace, Name: name, Labels: map[string]string{"app": IngressName, "istio": "ingressgateway"}}
	}
	labels := map[string]string{
		"app": IngressName, "istio": "ingressgateway", "sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none",
		"service.istio.io/canonical-name": IngressName, "service.istio.io/canonical-revision": "latest",
	}
	port := func(name string, number, target int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromInt32(target), Protocol: corev1.ProtocolTCP}
	}
	pod, err := deploy.PodSpec(deploy.Proxy{Role: deploy.RoleRouter, Namespace: Namespace, Name: IngressName, ServiceAccount: account}, ProxyValues())
	if err != nil {
		return nil, err
	}
	return []manifest.Object{
		&corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta(account)},
		// What lets Gateways name Secrets as credentialName, as the chart of gateways has it.
		&rbacv1.Role{
			TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "Role"}, ObjectMeta: meta(IngressName + "-sds"),
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "watch", "list"}}},
		},
		&rbacv1.RoleBinding{
			TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"}, ObjectMeta: meta(IngressName + "-sds"),
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: IngressName + "-sds"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: Namespace, Name: account}},
		},
		&corev1.Service{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta(IngressName),
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: selector, Ports: []corev1.ServicePort{
				port("status-port", StatusPort, StatusPort), port("http2", 80, 8080), port("https", 443, 8443), port("tcp", 31400, 31400), port("tls", 15443, 15443),
			}},
		},
		&appsv1.Deployment{
			TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: meta(IngressName),
			Spec: appsv1.DeploymentSpec{
				Selector: &metav1.LabelSelector{MatchLabels: selector},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{
						"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
					}},
					Spec: pod,
				},
			},
		},
	}, nil
}
