// Package nodeagent enrols the pods of one node: it decides which pods belong into the mesh, puts the redirection into
// their network namespaces, and hands these to the node's proxy.
//
// decide.go is pure. record.go is what is known of one pod. agent.go brings each record to what is decided. handler.go is
// the door for the CNI plugin.
package nodeagent

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// The labels and annotations by which pods and namespaces are enrolled.
const (
	LabelDataplaneMode    = "istio.io/dataplane-mode"
	ModeAmbient           = "ambient"
	ModeNone              = "none"
	AnnotationRedirection = "ambient.istio.io/redirection"
	RedirectionEnabled    = "enabled"
	RedirectionPending    = "pending"
	annotationSidecar     = "sidecar.istio.io/status"
)

// wanted decides whether a pod belongs into the mesh, given its namespace's labels.
func wanted(pod *corev1.Pod, namespaceLabels map[string]string, excluded func(namespace string) bool) bool {
	if pod.Spec.HostNetwork || excluded(pod.Namespace) {
		return false
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	if pod.Annotations[annotationSidecar] != "" {
		return false
	}
	mode, set := pod.Labels[LabelDataplaneMode]
	if !set {
		mode = namespaceLabels[LabelDataplaneMode]
	}
	return mode == ModeAmbient
}

// accountOf is the pod's service account.
func accountOf(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

// quoted is for logs.
func quoted(pod *corev1.Pod) string { return strconv.Quote(pod.Namespace + "/" + pod.Name) }
