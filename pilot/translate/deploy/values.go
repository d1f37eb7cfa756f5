// Package deploy renders what a Gateway of the Gateway API is deployed as: a ServiceAccount, a Deployment and a Service and, when
// they are asked for, a HorizontalPodAutoscaler and a PodDisruptionBudget. It is pure: whoever runs it applies the objects.
package deploy

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
)

// Values are what the installation says about the proxies that are deployed. The zero value of each field means its default.
type Values struct {
	// Hub and Tag of the images; Image is the proxy's name among them, or a whole reference when it has a slash.
	Hub, Tag, Image string
	// ImagePullPolicy and ImagePullSecrets of the proxies' pods.
	ImagePullPolicy  corev1.PullPolicy
	ImagePullSecrets []string
	// Revision of the control plane that deploys, "default" when it is not named.
	Revision string
	// Domain is the suffix of Kubernetes Services' names.
	Domain string
	// TrustDomain, ClusterID, Network and MeshID are told to the proxies.
	TrustDomain, ClusterID, Network, MeshID string
	// Discovery is the control plane's address, CA that of the certificate authority (default: the same).
	Discovery, CA string
	// ProxyConfig is the mesh's default proxy configuration in JSON; the discovery address is put into it.
	ProxyConfig json.RawMessage
	// TrustBundle is the name of the ClusterTrustBundle with the root certificates; empty where they are in a ConfigMap.
	TrustBundle string
	// CertProvider is who issued the control plane's certificate.
	CertProvider string
	// LogLevel and ComponentLogLevel of the proxy.
	LogLevel, ComponentLogLevel string
	// AgentLogLevel is the level of everything else in its process.
	AgentLogLevel string
	LogAsJSON     bool
	// Gateway and Waypoint are what the pods of each kind ask for.
	Gateway, Waypoint Pod
	// Classes are overlays for all Gateways of a class, by its name, and then by the name of the object's kind as in the parameters
	// of a Gateway: deployment, service, serviceAccount, horizontalPodAutoscaler, podDisruptionBudget.
	Classes map[string]map[string]string
}

// Pod is what an installation can say of the pods of proxies.
type Pod struct {
	Resources                 *corev1.ResourceRequirements
	Affinity                  *corev1.Affinity
	TopologySpreadConstraints []corev1.TopologySpreadConstraint
	NodeSelector              map[string]string
	Tolerations               []corev1.Toleration
	// TerminationGracePeriodSeconds is how long open requests may take to end.
	TerminationGracePeriodSeconds *int64
	PriorityClassName             string
}
