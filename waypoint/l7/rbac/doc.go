// Package rbac compiles and evaluates Envoy's RBAC, for requests and for connections.
package rbac
