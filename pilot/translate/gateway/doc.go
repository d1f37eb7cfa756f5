// Package gateway translates the routing APIs (VirtualService, Gateway, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute,
// ReferenceGrant, BackendTLSPolicy) into Envoy's RouteConfigurations, into descriptions of a gateway's servers, and into status conditions.
//
// What a caller needs:
//
//	View                 what a translation may look up, one object at a time, so that a caller can track the dependencies
//	WaypointRoutes       one service port of a waypoint → RouteConfiguration inbound-vip|PORT|http|HOST
//	WaypointTCP          one service port of a waypoint → TCP targets (TLSRoute, TCPRoute, or VirtualService tcp[] and tls[])
//	GatewayConfig        all objects of one gateway → servers (one per bound port) and RouteConfigurations http.PORT
//	BackendTLSFor        one service port → the TLS that is spoken to it
//	VirtualServiceHosts  full host names of a VirtualService: what to index by
//	ParentServices       full host names of the Services that a route names as parent: what to index by
//	…Status              conditions of one object, given what it refers to
//
// Everything here is pure: objects in, values out, no clock and no I/O. Callers pass all candidates; the package itself decides
// which of them apply (namespace, exportTo, hosts, gateways, parents) and in which order (oldest first), so that the rule is
// written once.
package gateway
