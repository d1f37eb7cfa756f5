package ca

import (
	"errors"
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Pod is what the node authorizer has to know of one.
type Pod struct{ UID, ServiceAccount, Node string }

// Pods finds pods of this cluster.
type Pods interface {
	Pod(namespace, name string) (Pod, bool)
	// NodeHasServiceAccount tells whether a pod that has not failed runs on the node under the service account.
	NodeHasServiceAccount(node, namespace, account string) bool
}

// NodeAuthorizer lets a node proxy have the certificates of the workloads on its own node, and of nobody else.
type NodeAuthorizer struct {
	// ClusterID of the pods that are known.
	ClusterID string
	// Trusted service accounts, "namespace/name", are the node proxies'.
	Trusted []string
	// TrustDomains are the mesh's own and its other names: a certificate for another one would be believed elsewhere.
	TrustDomains func() []string
	Pods         Pods
}

// Authorize returns nil when caller may have a certificate for requested.
func (n *NodeAuthorizer) Authorize(caller Caller, requested string) (spiffe.ID, error) {
	if caller.ClusterID != n.ClusterID {
		return spiffe.ID{}, fmt.Errorf("the caller's cluster %q is not known here", caller.ClusterID)
	}
	account := caller.Namespace + "/" + caller.ServiceAccount
	if !slices.Contains(n.Trusted, account) {
		return spiffe.ID{}, fmt.Errorf("%s is not a trusted node account", account)
	}
	id, err := spiffe.Parse(requested)
	if err != nil {
		return spiffe.ID{}, fmt.Errorf("requested identity: %w", err)
	}
	if !slices.Contains(n.TrustDomains(), id.TrustDomain) {
		return spiffe.ID{}, fmt.Errorf("trust domain %q is not the mesh's", id.TrustDomain)
	}
	if caller.PodName == "" || caller.PodUID == "" {
		return spiffe.ID{}, errors.New("the caller's token is not bound to a pod")
	}
	pod, ok := n.Pods.Pod(caller.Namespace, caller.PodName)
	switch {
	case !ok:
		return spiffe.ID{}, fmt.Errorf("the caller's pod %s/%s is not known", caller.Namespace, caller.PodName)
	case pod.UID != caller.PodUID:
		return spiffe.ID{}, fmt.Errorf("the caller's pod %s/%s is another one now", caller.Namespace, caller.PodName)
	case pod.ServiceAccount != caller.ServiceAccount:
		return spiffe.ID{}, fmt.Errorf("the caller's pod %s/%s runs as another service account", caller.Namespace, caller.PodName)
	case caller.Node != "" && pod.Node != caller.Node:
		return spiffe.ID{}, fmt.Errorf("the caller's pod %s/%s is on node %q, its token is of node %q", caller.Namespace, caller.PodName, pod.Node, caller.Node)
	case pod.Node == "":
		return spiffe.ID{}, fmt.Errorf("the caller's pod %s/%s is on no node", caller.Namespace, caller.PodName)
	case !n.Pods.NodeHasServiceAccount(pod.Node, id.Namespace, id.ServiceAccount):
		return spiffe.ID{}, fmt.Errorf("node %s has no pod of service account %s/%s", pod.Node, id.Namespace, id.ServiceAccount)
	}
	return id, nil
}
