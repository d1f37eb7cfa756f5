// Package kubetest gives tests a real API server: etcd and kube-apiserver as built by `make envtest`, with the CRDs of the
// repository and RBAC. Test files that use it start with //go:build envtest.
package kubetest
