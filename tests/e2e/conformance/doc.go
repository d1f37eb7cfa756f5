// Package conformance runs the public Gateway API conformance suite against the mesh of a cluster, for the profiles of gateways and of
// service meshes, and writes its report. Its tests of statuses also run without a cluster, against the control plane's translation.
package conformance
