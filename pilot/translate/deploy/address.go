package deploy

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Addresses are those at which a Gateway is reached by its Service: of the load balancer or, without one, inside the cluster.
func Addresses(gw *gatewayv1.Gateway, controller gatewayv1.GatewayController, s *corev1.Service, domain string) []gatewayv1.GatewayStatusAddress {
	if s == nil {
		return nil
	}
	c, _ := classOf(controller)
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return external(s)
	}
	wanted := gatewayv1.AddressType(gw.Annotations[annotationAddressType])
	name := []gatewayv1.GatewayStatusAddress{address(gatewayv1.HostnameAddressType, Hostname(s, domain))}
	if !c.both && wanted != gatewayv1.IPAddressType {
		return name
	}
	var out []gatewayv1.GatewayStatusAddress
	for _, text := range s.Spec.ClusterIPs {
		if _, err := netip.ParseAddr(text); err == nil {
			out = append(out, address(gatewayv1.IPAddressType, text))
		}
	}
	switch {
	case wanted == gatewayv1.HostnameAddressType:
		return name
	case len(out) > 0 && c.both && wanted == "":
		return append(out, name...)
	}
	return out // it is to get an address first
}

func external(s *corev1.Service) (out []gatewayv1.GatewayStatusAddress) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			out = append(out, address(gatewayv1.IPAddressType, in.IP))
		}
		if in.Hostname != "" {
			out = append(out, address(gatewayv1.HostnameAddressType, in.Hostname))
		}
	}
	return out
}

func address(kind gatewayv1.AddressType, value string) gatewayv1.GatewayStatusAddress {
	return gatewayv1.GatewayStatusAddress{Type: &kind, Value: value}
}

// Hostname is the name of a Service inside the cluster.
func Hostname(s *corev1.Service, domain string) string {
	return s.Name + "." + s.Namespace + ".svc." + domain
}

// Endpoints are a Service's host name with each port that a Gateway's listeners have, for people.
func Endpoints(s *corev1.Service, domain string) (out []string) {
	for _, p := range s.Spec.Ports {
		if p.Name != statusPortName {
			out = append(out, fmt.Sprintf("%s:%d", Hostname(s, domain), p.Port))
		}
	}
	return out
}
