package gateway

import (
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// Mesh is what of the mesh's configuration routes depend on.
type Mesh struct {
	// Domain is the cluster's, "cluster.local" when empty.
	Domain string
	// RootNamespace is "istio-system" when empty.
	RootNamespace string
	// DefaultRetry is meshConfig.defaultHttpRetryPolicy.
	DefaultRetry *networkingapi.HTTPRetry
	// DefaultExportTo is meshConfig.defaultVirtualServiceExportTo.
	DefaultExportTo []string
}

// ClusterName names the cluster of a destination. It is called for hosts that do not exist too.
type ClusterName func(host string, port uint32, subset string) string

// WaypointInput is one HTTP port of one service behind a waypoint.
type WaypointInput struct {
	Mesh Mesh
	// Namespace and Name are the waypoint's.
	Namespace, Name string
	Service         *Service
	Port            Port
	// The objects that may concern the service, in any order: those whose hosts or parents name it.
	VirtualServices []*networkingv1.VirtualService
	HTTPRoutes      []*gatewayv1.HTTPRoute
	GRPCRoutes      []*gatewayv1.GRPCRoute
	TLSRoutes       []*gatewayv1.TLSRoute
	TCPRoutes       []*gatewayv1.TCPRoute
	ClusterName     ClusterName
}

// WaypointRouteName is the name of the RouteConfiguration of a service port on its waypoint.
func WaypointRouteName(host string, port uint32) string {
	return WaypointCluster(host, port, "http", "")
}

// TCPRoute is a match of connections, and where they go. An empty match takes all of them.
type TCPRoute struct {
	// SNI are server names; a leading *. is a wildcard.
	SNI []string
	// Destinations are CIDR ranges.
	Destinations []string
	Targets      []TCPTarget
	Origin       route.Origin
}

// TCPTarget is a cluster and its share.
type TCPTarget struct {
	Cluster string
	Weight  uint32
	TCPSettings
}
