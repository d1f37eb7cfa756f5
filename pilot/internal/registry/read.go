package registry

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// Pod returns a pod.
func (r *Registry) Pod(namespace, name string) (*ambient.Pod, bool) {
	return r.pods.Get(namespace + "/" + name)
}

// Service returns a Service as the API has it.
func (r *Registry) Service(namespace, name string) (*corev1.Service, bool) {
	return r.services.Get(namespace + "/" + name)
}

// NodeHasServiceAccount reports whether a pod with the service account is on the node and has not failed.
func (r *Registry) NodeHasServiceAccount(node, namespace, account string) bool {
	return slices.ContainsFunc(r.podsByNode.Lookup(node), func(p *ambient.Pod) bool {
		return p.Namespace == namespace && p.Account == account && p.Phase != corev1.PodFailed
	})
}

// Workloads returns all workloads, by uid.
func (r *Registry) Workloads() []*ambient.Workload {
	list := r.workloads.List()
	out := make([]*ambient.Workload, 0, len(list))
	for _, a := range list {
		out = append(out, a.decode())
	}
	return out
}

// Services returns all services, by namespace and hostname.
func (r *Registry) Services() []*ambient.Service { return r.serviceList.List() }

// Policies returns all policies with what became of them, by namespace and name.
func (r *Registry) Policies() []*ambient.Policy { return r.policyList.List() }
