package deploy

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Controllers that GatewayClasses name.
const (
	// ControllerGateway deploys gateways in front of the mesh, ControllerWaypoint waypoints.
	ControllerGateway  = "istio.io/gateway-controller"
	ControllerWaypoint = "istio.io/mesh-controller"
	// ControllerUnmanaged is of Gateways that somebody else deploys.
	ControllerUnmanaged = "istio.io/unmanaged-gateway"
)

// Role is what a proxy serves as: the second argument of its command.
type Role string

// The roles.
const (
	RoleRouter   Role = "router"
	RoleWaypoint Role = "waypoint"
)

// class is what Gateways of a controller have in common.
type class struct {
	role    Role
	managed string // value of the label by which their objects are known
	suffix  bool   // the class's name is appended to the objects' names
	service corev1.ServiceType
	// both tells to publish the Service's host name besides its addresses.
	both        bool
	annotations map[string]string // of the Service
}

// classOf returns the class that a controller deploys; ok is false for other ones.
func classOf(controller gatewayv1.GatewayController) (c class, ok bool) {
	switch controller {
	case ControllerGateway:
		return class{role: RoleRouter, managed: "istio.io-gateway-controller", suffix: true, service: corev1.ServiceTypeLoadBalancer}, true
	case ControllerWaypoint:
		return class{
			role: RoleWaypoint, managed: "istio.io-mesh-controller", service: corev1.ServiceTypeClusterIP, both: true,
			annotations: map[string]string{"networking.istio.io/traffic-distribution": "PreferClose"},
		}, true
	}
	return class{}, false
}

// Deploys reports whether the Gateways of a controller are deployed here.
func Deploys(controller gatewayv1.GatewayController) bool {
	_, ok := classOf(controller)
	return ok
}

// ManagedLabels are the values of LabelManaged that objects made here have.
func ManagedLabels() []string {
	return []string{"istio.io-gateway-controller", "istio.io-mesh-controller"}
}

// BuiltinClasses are the GatewayClasses that exist from the start.
func BuiltinClasses() []*gatewayv1.GatewayClass {
	var out []*gatewayv1.GatewayClass
	for _, c := range []struct {
		name, says string
		controller gatewayv1.GatewayController
	}{
		{"istio", "Gateways into and out of the mesh, deployed for you", ControllerGateway},
		{"istio-remote", "Gateways that somebody else deploys, at the addresses they name", ControllerUnmanaged},
		{"istio-waypoint", "Waypoints for services and workloads, deployed for you", ControllerWaypoint},
	} {
		out = append(out, &gatewayv1.GatewayClass{
			TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "GatewayClass"},
			ObjectMeta: metav1.ObjectMeta{Name: c.name},
			Spec:       gatewayv1.GatewayClassSpec{ControllerName: c.controller, Description: &c.says},
		})
	}
	return out
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

// IsOfRevision tells whether what bears the labels is the business of a revision's control plane: it names the revision, or a tag that
// leads to it. What names none is the business of whom the tag "default" leads to, or else of the default revision.
func IsOfRevision(labels map[string]string, revision string, tags map[string]string) bool {
	named := cmp.Or(labels[LabelRevision], defaultRevision)
	return cmp.Or(tags[named], named) == cmp.Or(revision, defaultRevision)
}

const defaultRevision = "default"

// Discovery is the address of a revision's control plane.
func Discovery(revision, namespace string) string {
	name := "istiod"
	if revision != "" && revision != defaultRevision {
		name += "-" + revision
	}
	return strings.Join([]string{name, namespace, "svc:15012"}, ".")
}
