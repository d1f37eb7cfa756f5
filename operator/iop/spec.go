// Package iop reads IstioOperator files (install.istio.io/v1alpha1): what a person asks an installation to be, over a profile, under
// --set. Unknown fields are refused by their path.
package iop

import (
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// APIVersion and Kind of the files.
const (
	APIVersion = "install.istio.io/v1alpha1"
	Kind       = "IstioOperator"
)

// Operator is an IstioOperator.
type Operator struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              Spec           `json:"spec,omitempty"`
	Status            map[string]any `json:"status,omitempty"`
}

// Spec is what is installed.
type Spec struct {
	// Profile is the set of defaults that the rest is put over.
	Profile string `json:"profile,omitempty"`
	// InstallPackagePath is a directory of charts to use instead of the built-in ones.
	InstallPackagePath string `json:"installPackagePath,omitempty"`
	// Hub and Tag of the images.
	Hub string              `json:"hub,omitempty"`
	Tag *intstr.IntOrString `json:"tag,omitempty"`
	// Namespace of the control plane.
	Namespace            string `json:"namespace,omitempty"`
	Revision             string `json:"revision,omitempty"`
	CompatibilityVersion string `json:"compatibilityVersion,omitempty"`
	// MeshConfig is the mesh configuration.
	MeshConfig map[string]any `json:"meshConfig,omitempty"`
	// Values are those of the charts, in Istio's nested shape. UnvalidatedValues are put over them and not checked.
	Values            map[string]any `json:"values,omitempty"`
	UnvalidatedValues map[string]any `json:"unvalidatedValues,omitempty"`
	Components        Components     `json:"components,omitempty"`
}

// Components are the parts of an installation.
type Components struct {
	Base            Component `json:"base,omitempty"`
	Pilot           Component `json:"pilot,omitempty"`
	CNI             Component `json:"cni,omitempty"`
	Ztunnel         Component `json:"ztunnel,omitempty"`
	IstiodRemote    Component `json:"istiodRemote,omitempty"`
	IngressGateways []Gateway `json:"ingressGateways,omitempty"`
	EgressGateways  []Gateway `json:"egressGateways,omitempty"`
}

// Component is one part.
type Component struct {
	Enabled   *bool               `json:"enabled,omitempty"`
	Namespace string              `json:"namespace,omitempty"`
	Hub       string              `json:"hub,omitempty"`
	Tag       *intstr.IntOrString `json:"tag,omitempty"`
	K8s       *Kubernetes         `json:"k8s,omitempty"`
}

// On tells whether the component is installed.
func (c Component) On() bool { return c.Enabled != nil && *c.Enabled }

// Gateway is one gateway.
type Gateway struct {
	Component `json:",inline"`
	Name      string            `json:"name,omitempty"`
	Label     map[string]string `json:"label,omitempty"`
}

// Kubernetes are settings of a component's objects.
type Kubernetes struct {
	Affinity            *corev1.Affinity                           `json:"affinity,omitempty"`
	Env                 []corev1.EnvVar                            `json:"env,omitempty"`
	HPASpec             *autoscalingv2.HorizontalPodAutoscalerSpec `json:"hpaSpec,omitempty"`
	ImagePullPolicy     corev1.PullPolicy                          `json:"imagePullPolicy,omitempty"`
	NodeSelector        map[string]string                          `json:"nodeSelector,omitempty"`
	PodAnnotations      map[string]string                          `json:"podAnnotations,omitempty"`
	PodDisruptionBudget *policyv1.PodDisruptionBudgetSpec          `json:"podDisruptionBudget,omitempty"`
	PriorityClassName   string                                     `json:"priorityClassName,omitempty"`
	ReadinessProbe      *corev1.Probe                              `json:"readinessProbe,omitempty"`
	ReplicaCount        *int32                                     `json:"replicaCount,omitempty"`
	Resources           *corev1.ResourceRequirements               `json:"resources,omitempty"`
	SecurityContext     *corev1.PodSecurityContext                 `json:"securityContext,omitempty"`
	Service             *corev1.ServiceSpec                        `json:"service,omitempty"`
	ServiceAnnotations  map[string]string                          `json:"serviceAnnotations,omitempty"`
	Strategy            *appsv1.DeploymentStrategy                 `json:"strategy,omitempty"`
	Tolerations         []corev1.Toleration                        `json:"tolerations,omitempty"`
	Volumes             []corev1.Volume                            `json:"volumes,omitempty"`
	VolumeMounts        []corev1.VolumeMount                       `json:"volumeMounts,omitempty"`
	// Overlays change fields of rendered objects.
	Overlays []Overlay `json:"overlays,omitempty"`
}

// Overlay changes one object.
type Overlay struct {
	APIVersion string  `json:"apiVersion,omitempty"`
	Kind       string  `json:"kind,omitempty"`
	Name       string  `json:"name,omitempty"`
	Patches    []Patch `json:"patches,omitempty"`
	Optional   bool    `json:"optional,omitempty"`
}

// Patch sets the value at a path such as spec.template.spec.containers.[name:discovery].args.[0]; without a value it removes it.
type Patch struct {
	Path  string `json:"path,omitempty"`
	Value any    `json:"value,omitempty"`
}
