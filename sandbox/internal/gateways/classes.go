// Package gateways deploys Gateways of the Gateway API, as the mesh's deployment controller does in a cluster: for each one
// of a class of ours a ServiceAccount, a Deployment and a Service, which go when it does.
//
// Render is pure; a Controller keeps the store in line with it, and writes the Gateways' status.
package gateways

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

const (
	controllerGateway   = "istio.io/gateway-controller"
	controllerWaypoint  = "istio.io/mesh-controller"
	controllerUnmanaged = "istio.io/unmanaged-gateway"
)

// class is what Gateways of a controller have in common.
type class struct {
	// role is the proxy's first argument, managed the label by which its objects are known.
	role, managed string
	suffix        string // of the names of the objects
	service       corev1.ServiceType
	// both tells to publish the Service's host name besides its addresses.
	both        bool
	annotations map[string]string // of the Service
}

// classOf returns the class that a controller deploys; ok is false for the other ones.
func classOf(controller gatewayv1.GatewayController) (c class, ok bool) {
	switch controller {
	case controllerGateway:
		return class{role: "router", managed: "istio.io-gateway-controller", suffix: "-istio", service: corev1.ServiceTypeLoadBalancer}, true
	case controllerWaypoint:
		return class{
			role: "waypoint", managed: "istio.io-mesh-controller", service: corev1.ServiceTypeClusterIP, both: true,
			annotations: map[string]string{"networking.istio.io/traffic-distribution": "PreferClose"},
		}, true
	}
	return class{}, false
}

// Classes are the GatewayClasses that exist from the start.
func Classes() []*gatewayv1.GatewayClass {
	var out []*gatewayv1.GatewayClass
	for _, c := range []struct {
		name, says string
		controller gatewayv1.GatewayController
	}{
		{"istio", "Gateways that are deployed for you, in front of the mesh.", controllerGateway},
		{"istio-remote", "Gateways that somebody else deploys; their addresses are in their specification.", controllerUnmanaged},
		{"istio-waypoint", "Waypoints: proxies for the services of a namespace, deployed for you.", controllerWaypoint},
	} {
		out = append(out, &gatewayv1.GatewayClass{
			TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "GatewayClass"},
			ObjectMeta: metav1.ObjectMeta{Name: c.name},
			Spec:       gatewayv1.GatewayClassSpec{ControllerName: c.controller, Description: &c.says},
			Status: gatewayv1.GatewayClassStatus{Conditions: []metav1.Condition{{
				Type: string(gatewayv1.GatewayClassConditionStatusAccepted), Status: metav1.ConditionTrue,
				Reason: string(gatewayv1.GatewayClassReasonAccepted), Message: "Handled by the mesh's gateway controller",
			}}},
		})
	}
	return out
}
