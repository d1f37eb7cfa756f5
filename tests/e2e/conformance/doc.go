// Package conformance runs the public Gateway API conformance suite against the mesh of a cluster, for the profiles of service
// meshes, and writes its report.
package conformance
