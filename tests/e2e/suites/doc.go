// Package suites holds the end-to-end specifications of the mesh on Kubernetes. `make e2e` runs them in kind; by hand:
//
//	KUBECONFIG=… ISTIOCTL=… go test -tags e2e ./suites -ginkgo.v -ginkgo.focus TestTrafficSplit
//
// Names in brackets are those of the tests of Istio that a specification mirrors.
package suites
