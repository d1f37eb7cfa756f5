package deploy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// statusPortName is of the port that answers whether the proxy is ready; it is none of the Gateway's listeners.
const statusPortName = "status-port"

func (r *renderer) service() (*corev1.Service, error) {
	policy := corev1.IPFamilyPolicyPreferDualStack
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: r.meta(r.names.Deployment),
		Spec: corev1.ServiceSpec{Type: r.class.service, Selector: r.selector(), IPFamilyPolicy: &policy},
	}
	s.Annotations = map[string]string{}
	maps.Copy(s.Annotations, r.class.annotations)
	maps.Copy(s.Annotations, r.annotations)
	switch kind := r.serviceType(); kind {
	case "":
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		s.Spec.Type = kind
	default:
		return nil, fmt.Errorf("annotation %s: %q is none of ClusterIP, NodePort, LoadBalancer", annotationServiceType, kind)
	}
	if len(r.gw.Spec.Addresses) == 1 && s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		s.Spec.LoadBalancerIP = r.gw.Spec.Addresses[0].Value
	}
	var err error
	s.Spec.Ports, err = servicePorts(r.gw, r.added)
	return s, err
}

// serviceType is that of an annotation, of the Gateway or of its infrastructure.
func (r *renderer) serviceType() corev1.ServiceType {
	kind := r.gw.Annotations[annotationServiceType]
	if in := r.gw.Spec.Infrastructure; in != nil {
		kind = cmp.Or(string(in.Annotations[annotationServiceType]), kind)
	}
	return corev1.ServiceType(kind)
}

// servicePorts are one for each port that listeners have, after the one of the proxy's status. Listeners that others have added come last,
// and change nothing of the Gateway's own ports.
func servicePorts(gw *gatewayv1.Gateway, added []gatewayv1.Listener) (out []corev1.ServicePort, err error) {
	names, seen := map[string]bool{}, map[int32]bool{}
	add := func(name, protocol string, port int32) {
		if names[name] {
			name = fmt.Sprintf("port-%d", port)
		}
		for n := 2; names[name]; n++ {
			name = fmt.Sprintf("port-%d-%d", port, n)
		}
		names[name], seen[port] = true, true
		out = append(out, corev1.ServicePort{
			Name: name, Port: port, TargetPort: intstr.FromInt32(port), Protocol: corev1.ProtocolTCP, AppProtocol: &protocol,
		})
	}
	add(statusPortName, "tcp", statusPort)
	for i, l := range gw.Spec.Listeners {
		if l.Protocol != gatewayv1.UDPProtocolType && l.Port == statusPort {
			return nil, fmt.Errorf("spec.listeners[%d].port: %d is the gateway's own port for its status: choose another", i, l.Port)
		}
	}
	for _, l := range slices.Concat(gw.Spec.Listeners, added) {
		if port := int32(l.Port); l.Protocol != gatewayv1.UDPProtocolType && !seen[port] {
			add(portName(l), strings.ToLower(string(l.Protocol)), port)
		}
	}
	return out, nil
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
