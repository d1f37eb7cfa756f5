// Package kube turns Kubernetes objects into typed values, whatever they come from: it decodes manifests strictly,
// validates the kinds a mesh reads, and watches a directory of them as if it were an API server.
//
// Objects are shared once they were handed out: nobody modifies them.
package kube
