// Package dns answers a pod's DNS queries from what the mesh knows, and forwards the rest.
//
// names.go lists what a query may mean, resolve.go picks the service and its addresses (both pure), server.go speaks the
// protocol in the pod's network namespace, forward.go asks the node's own resolvers from there.
package dns
