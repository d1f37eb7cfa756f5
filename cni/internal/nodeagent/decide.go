// Package nodeagent enrols the pods of one node: it decides which pods belong into the mesh, puts the redirection into
// their network namespaces, and hands these to the node's proxy.
//
// decide.go and strict.go are pure. record.go is what is known of one pod. agent.go has the objects, enrol.go brings each record
// to what is decided, discover.go finds pods that ran before the agent knew of them, older.go looks after their connections.
// handler.go is the door for the CNI plugin.
package nodeagent

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
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

// Selection says by labels which pods belong into the mesh: those that one of its entries matches. The empty one goes by the
// label istio.io/dataplane-mode of the pod, or else of its namespace.
type Selection []selector

type selector struct{ namespace, pod labels.Selector }

// ParseSelection reads a YAML list of {namespaceSelector, podSelector}; one that is left out matches everything.
func ParseSelection(text string) (Selection, error) {
	var list []struct {
		Namespace metav1.LabelSelector `json:"namespaceSelector"`
		Pod       metav1.LabelSelector `json:"podSelector"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("enablement selectors: %w", err)
	}
	var out Selection
	for i, entry := range list {
		namespace, err := metav1.LabelSelectorAsSelector(&entry.Namespace)
		if err != nil {
			return nil, fmt.Errorf("enablement selectors: [%d].namespaceSelector: %w", i, err)
		}
		pod, err := metav1.LabelSelectorAsSelector(&entry.Pod)
		if err != nil {
			return nil, fmt.Errorf("enablement selectors: [%d].podSelector: %w", i, err)
		}
		out = append(out, selector{namespace, pod})
	}
	return out, nil
}

func (s Selection) matches(pod, namespace map[string]string) bool {
	if len(s) == 0 {
		mode, set := pod[LabelDataplaneMode]
		if !set {
			mode = namespace[LabelDataplaneMode]
		}
		return mode == ModeAmbient
	}
	return slices.ContainsFunc(s, func(entry selector) bool {
		return entry.namespace.Matches(labels.Set(namespace)) && entry.pod.Matches(labels.Set(pod))
	})
}

// wanted decides whether a pod belongs into the mesh, given its namespace's labels.
func (s Selection) wanted(pod *corev1.Pod, namespaceLabels map[string]string, excluded func(namespace string) bool) bool {
	if pod.Spec.HostNetwork || excluded(pod.Namespace) {
		return false
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	if pod.Annotations[annotationSidecar] != "" {
		return false
	}
	return s.matches(pod.Labels, namespaceLabels)
}

// accountOf is the pod's service account.
func accountOf(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

// addressesOf are those that the pod's status has.
func addressesOf(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, p := range pod.Status.PodIPs {
		if ip, err := netip.ParseAddr(p.IP); err == nil {
			out = append(out, ip.Unmap())
		}
	}
	if ip, err := netip.ParseAddr(pod.Status.PodIP); err == nil && len(out) == 0 {
		out = append(out, ip.Unmap())
	}
	return out
}

// quoted is for logs.
func quoted(pod *corev1.Pod) string { return strconv.Quote(pod.Namespace + "/" + pod.Name) }
