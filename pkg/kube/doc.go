// Package kube turns Kubernetes objects into typed values, whatever they come from: it decodes manifests strictly,
// validates the kinds a mesh reads, and watches a directory of them as if it were an API server. An API server itself is
// watched by the package cluster below.
//
// Objects are shared once they were handed out: nobody modifies them.
package kube
