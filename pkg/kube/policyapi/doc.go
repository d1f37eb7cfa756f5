// Package policyapi has the kinds of the mesh's own API group, policy.isthmus.dev: what Istio has no kind for. Their definitions are in
// operator/crds/isthmus.yaml; a test keeps the two in line.
package policyapi
