package kube

import (
	"google.golang.org/protobuf/proto"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	networkingv1beta1 "istio.io/client-go/pkg/apis/networking/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// kind is one row of the table of what can be decoded.
type kind struct {
	gvk schema.GroupVersionKind // of the Go type
	// also are the other versions of the group that are read into the same Go type.
	also        []string
	clusterWide bool
	empty       func() Object
	// spec returns the part that is a protobuf message; nil for kinds that are plain Go structs.
	spec func(Object) proto.Message
}

// Group names of the kinds that are decoded beside the core group.
const (
	groupApps       = "apps"
	groupDiscovery  = "discovery.k8s.io"
	groupRBAC       = "rbac.authorization.k8s.io"
	groupNetworking = "networking.istio.io"
	groupSecurity   = "security.istio.io"
	groupTelemetry  = "telemetry.istio.io"
	groupExtensions = "extensions.istio.io"
	groupGateway    = "gateway.networking.k8s.io"
)

func gvk(group, version, kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
}

// PodGVK is core/v1 Pod, as Sink.Apply is called with it.
func PodGVK() schema.GroupVersionKind { return gvk("", "v1", "Pod") }

// NodeGVK is core/v1 Node.
func NodeGVK() schema.GroupVersionKind { return gvk("", "v1", "Node") }

// NamespaceGVK is core/v1 Namespace.
func NamespaceGVK() schema.GroupVersionKind { return gvk("", "v1", "Namespace") }

// ServiceGVK is core/v1 Service.
func ServiceGVK() schema.GroupVersionKind { return gvk("", "v1", "Service") }

// EndpointSliceGVK is discovery.k8s.io/v1 EndpointSlice.
func EndpointSliceGVK() schema.GroupVersionKind { return gvk(groupDiscovery, "v1", "EndpointSlice") }

// GatewayGVK is the Gateway of the Gateway API.
func GatewayGVK() schema.GroupVersionKind { return gvk(groupGateway, "v1", "Gateway") }

// GatewayClassGVK is the GatewayClass of the Gateway API.
func GatewayClassGVK() schema.GroupVersionKind { return gvk(groupGateway, "v1", "GatewayClass") }

// ServiceEntryGVK is networking.istio.io/v1 ServiceEntry.
func ServiceEntryGVK() schema.GroupVersionKind { return gvk(groupNetworking, "v1", "ServiceEntry") }

// WorkloadEntryGVK is networking.istio.io/v1 WorkloadEntry.
func WorkloadEntryGVK() schema.GroupVersionKind { return gvk(groupNetworking, "v1", "WorkloadEntry") }

// AuthorizationPolicyGVK is security.istio.io/v1 AuthorizationPolicy.
func AuthorizationPolicyGVK() schema.GroupVersionKind {
	return gvk(groupSecurity, "v1", "AuthorizationPolicy")
}

// PeerAuthenticationGVK is security.istio.io/v1 PeerAuthentication.
func PeerAuthenticationGVK() schema.GroupVersionKind {
	return gvk(groupSecurity, "v1", "PeerAuthentication")
}

// kinds is the whole table, in the order in which a source delivers them: what others refer to comes first.
func kinds() []kind {
	own := kind{gvk: gvk(policyapi.Group, policyapi.Version, policyapi.KindRateLimitPolicy), empty: func() Object { return &policyapi.RateLimitPolicy{} }}
	return append(append(kubernetesKinds(), istioKinds()...), own)
}

func kubernetesKinds() []kind {
	core := func(name string, clusterWide bool, empty func() Object) kind {
		return kind{gvk: gvk("", "v1", name), clusterWide: clusterWide, empty: empty}
	}
	apps := func(name string, empty func() Object) kind {
		return kind{gvk: gvk(groupApps, "v1", name), empty: empty}
	}
	gateway := func(name string, empty func() Object, also ...string) kind {
		return kind{gvk: gvk(groupGateway, "v1", name), also: also, empty: empty}
	}
	class := gateway("GatewayClass", func() Object { return &gatewayv1.GatewayClass{} }, "v1beta1")
	class.clusterWide = true
	return []kind{
		core("Namespace", true, func() Object { return &corev1.Namespace{} }),
		core("Node", true, func() Object { return &corev1.Node{} }),
		core("ServiceAccount", false, func() Object { return &corev1.ServiceAccount{} }),
		core("ConfigMap", false, func() Object { return &corev1.ConfigMap{} }),
		core("Secret", false, func() Object { return &corev1.Secret{} }),
		{gvk: gvk(groupRBAC, "v1", "Role"), empty: func() Object { return &rbacv1.Role{} }},
		{gvk: gvk(groupRBAC, "v1", "RoleBinding"), empty: func() Object { return &rbacv1.RoleBinding{} }},
		core("Service", false, func() Object { return &corev1.Service{} }),
		apps("Deployment", func() Object { return &appsv1.Deployment{} }),
		apps("ReplicaSet", func() Object { return &appsv1.ReplicaSet{} }),
		apps("DaemonSet", func() Object { return &appsv1.DaemonSet{} }),
		apps("StatefulSet", func() Object { return &appsv1.StatefulSet{} }),
		core("Pod", false, func() Object { return &corev1.Pod{} }),
		{gvk: gvk(groupDiscovery, "v1", "EndpointSlice"), empty: func() Object { return &discoveryv1.EndpointSlice{} }},
		class,
		gateway("Gateway", func() Object { return &gatewayv1.Gateway{} }, "v1beta1"),
		gateway("ListenerSet", func() Object { return &gatewayv1.ListenerSet{} }),
		gateway("HTTPRoute", func() Object { return &gatewayv1.HTTPRoute{} }, "v1beta1"),
		gateway("GRPCRoute", func() Object { return &gatewayv1.GRPCRoute{} }, "v1alpha2"),
		gateway("TLSRoute", func() Object { return &gatewayv1.TLSRoute{} }, "v1alpha2", "v1alpha3"),
		gateway("TCPRoute", func() Object { return &gatewayv1.TCPRoute{} }, "v1alpha2"),
		gateway("UDPRoute", func() Object { return &gatewayv1.UDPRoute{} }, "v1alpha2"),
		gateway("ReferenceGrant", func() Object { return &gatewayv1.ReferenceGrant{} }, "v1beta1"),
		gateway("BackendTLSPolicy", func() Object { return &gatewayv1.BackendTLSPolicy{} }, "v1alpha3"),
	}
}

func istioKinds() []kind {
	both := []string{"v1beta1", "v1alpha3"}
	return []kind{
		istioKind(groupNetworking, "v1", "ServiceEntry", both, func(o *networkingv1.ServiceEntry) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1", "WorkloadEntry", both, func(o *networkingv1.WorkloadEntry) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1", "WorkloadGroup", both, func(o *networkingv1.WorkloadGroup) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1", "VirtualService", both, func(o *networkingv1.VirtualService) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1", "DestinationRule", both, func(o *networkingv1.DestinationRule) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1", "Gateway", both, func(o *networkingv1.Gateway) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1", "Sidecar", both, func(o *networkingv1.Sidecar) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1alpha3", "EnvoyFilter", nil, func(o *networkingv1alpha3.EnvoyFilter) proto.Message { return &o.Spec }),
		istioKind(groupNetworking, "v1beta1", "ProxyConfig", nil, func(o *networkingv1beta1.ProxyConfig) proto.Message { return &o.Spec }),
		istioKind(groupSecurity, "v1", "PeerAuthentication", both[:1], func(o *securityv1.PeerAuthentication) proto.Message { return &o.Spec }),
		istioKind(groupSecurity, "v1", "AuthorizationPolicy", both[:1], func(o *securityv1.AuthorizationPolicy) proto.Message { return &o.Spec }),
		istioKind(groupSecurity, "v1", "RequestAuthentication", both[:1], func(o *securityv1.RequestAuthentication) proto.Message { return &o.Spec }),
		istioKind(groupTelemetry, "v1", "Telemetry", []string{"v1alpha1"}, func(o *telemetryv1.Telemetry) proto.Message { return &o.Spec }),
		istioKind(groupExtensions, "v1alpha1", "WasmPlugin", nil, func(o *extensionsv1alpha1.WasmPlugin) proto.Message { return &o.Spec }),
	}
}

// istioKind makes the row of a kind whose Go type T is a struct around the message that spec returns.
func istioKind[T any, P interface {
	*T
	Object
}](group, version, name string, also []string, spec func(P) proto.Message) kind {
	return kind{
		gvk:   gvk(group, version, name),
		also:  also,
		empty: func() Object { return P(new(T)) },
		spec:  func(o Object) proto.Message { return spec(o.(P)) },
	}
}

// kindTable finds rows by any of their versions.
type kindTable map[schema.GroupVersionKind]kind

func newKindTable() kindTable {
	table := kindTable{}
	for _, k := range kinds() {
		table[k.gvk] = k
		for _, version := range k.also {
			table[gvk(k.gvk.Group, version, k.gvk.Kind)] = k
		}
	}
	return table
}
