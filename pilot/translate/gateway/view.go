package gateway

import (
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
)

// Protocol is what a port speaks.
type Protocol int

// Protocols. Unknown is to be found out per connection.
const (
	Unknown Protocol = iota
	HTTP
	HTTP2
	GRPC
	TLS
	TCP
)

// IsHTTP reports whether requests are routed, rather than connections.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC }

// Port is a port of a service.
type Port struct {
	Number, TargetPort uint32
	Name               string
	Protocol           Protocol
}

// Service is a Service of Kubernetes, or one host of a ServiceEntry.
type Service struct {
	// Hostname is the full name: reviews.default.svc.cluster.local.
	Hostname        string
	Namespace, Name string
	// Entry is true for a host of a ServiceEntry; Name is then the ServiceEntry's.
	Entry bool
	Ports []Port
	// Session is how sessions persist, by the service's own word.
	Session ambient.Session
}

// View is what a translation may look up. Every method may be called often; each call is a dependency of the result.
type View interface {
	// Service finds a service by its full host name, as objects of the namespace see it; nil when there is none.
	Service(host, fromNamespace string) *Service
	// ServiceEntry finds a ServiceEntry, for routes that name one.
	ServiceEntry(namespace, name string) *networkingv1.ServiceEntry
	// VirtualService finds a VirtualService, for delegation.
	VirtualService(namespace, name string) *networkingv1.VirtualService
	// DestinationRule finds the rule that applies to the host, as clients of the namespace see it.
	DestinationRule(host, fromNamespace string) *networkingv1.DestinationRule
	// ReferenceGrants are those of a namespace.
	ReferenceGrants(namespace string) []*gatewayv1.ReferenceGrant
	// Gateway finds a Gateway of the Gateway API.
	Gateway(namespace, name string) *gatewayv1.Gateway
	// ListenerSet finds a ListenerSet.
	ListenerSet(namespace, name string) *gatewayv1.ListenerSet
	ListenerSetView
	// Credential is nil when what a Gateway names is there and has what it is named for; else it says what is wrong.
	Credential(ref credential.Reference) error
	// GatewayClass finds a GatewayClass.
	GatewayClass(name string) *gatewayv1.GatewayClass
}
