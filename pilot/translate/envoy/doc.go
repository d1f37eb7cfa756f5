// Package envoy translates services, workloads and traffic policies into the listeners, clusters and endpoints of Envoy: of waypoints,
// of gateways and of gRPC clients without proxy. Only extensions of stock Envoy are used; what our own engine needs beyond those is
// metadata that Envoy ignores. Everything in it is a pure function of its arguments, and names are Istio's.
//
// A waypoint has three listeners: connect_terminate takes HBONE from clients, main_internal finds the service by its address and
// applies what is configured for it, and connect_originate speaks HBONE to pods. Routes are separate resources, so that a change of
// a weight does not touch a listener.
package envoy
