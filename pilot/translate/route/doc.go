// Package route is the one model of HTTP routing in front of Envoy's RouteConfiguration.
//
// Both routing APIs (VirtualService, and HTTPRoute with GRPCRoute) translate into this model, and one function, Config.Envoy, turns
// it into protobuf. Values of the model are checked where they are read, so that a mistake is named by the field it stands in;
// Envoy checks every message once more as a whole, and leaves out what Envoy's own validation would refuse.
//
// The package is pure: no clock, no network, no globals. The same input gives the same bytes.
package route
