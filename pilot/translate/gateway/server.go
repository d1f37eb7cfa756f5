package gateway

import (
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// GatewayInput is everything of one gateway.
type GatewayInput struct {
	Mesh Mesh
	// Namespace is the one of the gateway's pods.
	Namespace string
	// Classic are the Gateways whose selector matches the pods; K8s the Gateway that deployed them, or nil.
	Classic []*networkingv1.Gateway
	K8s     *gatewayv1.Gateway
	// All candidates, in any order.
	VirtualServices []*networkingv1.VirtualService
	HTTPRoutes      []*gatewayv1.HTTPRoute
	GRPCRoutes      []*gatewayv1.GRPCRoute
	TLSRoutes       []*gatewayv1.TLSRoute
	TCPRoutes       []*gatewayv1.TCPRoute
	// TargetPort gives the port that the pods listen on for a port of their Service; 0 when no Service has that port.
	TargetPort  func(port uint32) uint32
	ClusterName ClusterName
}

// Server is one port that the gateway's pods listen on.
type Server struct {
	// Bind is an address, empty for all; Port is the one of the pods.
	Bind string
	Port uint32
	// Protocol is HTTP (HTTP, HTTP2, GRPC, and HTTPS that is terminated), TLS (passed through) or TCP.
	Protocol Protocol
	// Name is the listener's: 0.0.0.0_8080.
	Name string
	// Chains is one for HTTP and TCP, one per set of SNI hosts for TLS and HTTPS.
	Chains []ServerChain
}

// ServerChain is what happens to the connections of a server that its SNI takes.
type ServerChain struct {
	// SNI is empty for all.
	SNI []string
	// TLS is set where the gateway terminates it; its credentials are the caller's to find (package credential).
	TLS *networkingapi.ServerTLSSettings
	// Origin is the Gateway that says so.
	Origin route.Origin
	// RouteName is set for HTTP.
	RouteName string
	// TCP is set for connections that are forwarded.
	TCP []TCPRoute
}
