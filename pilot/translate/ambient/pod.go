package ambient

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Pod is what the mesh reads of a corev1.Pod, in a third of the memory: there are more pods than of everything else together. It is
// immutable once it is handed out, and shares what it has with the object that it was made of.
type Pod struct {
	metav1.ObjectMeta
	// Node and Account are its name and the service account's; the latter is never empty.
	Node, Account string
	IPs           []netip.Addr
	// Containers and InitContainers are read for their ports.
	Containers, InitContainers []corev1.Container
	Phase                      corev1.PodPhase
	HostNetwork, Ready         bool
}

var _ kube.Object = (*Pod)(nil)

// NewPod returns what the mesh reads of a pod.
func NewPod(p *corev1.Pod) *Pod {
	out := &Pod{
		ObjectMeta: p.ObjectMeta, Node: p.Spec.NodeName, Account: p.Spec.ServiceAccountName, IPs: podIPs(p),
		Containers: p.Spec.Containers, InitContainers: p.Spec.InitContainers,
		Phase: p.Status.Phase, HostNetwork: p.Spec.HostNetwork, Ready: podReady(p),
	}
	if out.Account == "" {
		out.Account = "default"
	}
	return out
}

// Reduce is NewPod for pods, and leaves everything else as it is.
func Reduce(o kube.Object) kube.Object {
	if p, ok := o.(*corev1.Pod); ok {
		return NewPod(p)
	}
	return o
}

// Ended reports whether the pod has run, and will not again.
func (p *Pod) Ended() bool { return p.Phase == corev1.PodSucceeded || p.Phase == corev1.PodFailed }

// GetObjectKind implements runtime.Object.
func (*Pod) GetObjectKind() schema.ObjectKind { return podKind{} }

// DeepCopyObject implements runtime.Object. As pods are not modified, this is the same one.
func (p *Pod) DeepCopyObject() runtime.Object { return p }

// podKind is the kind of pods.
type podKind struct{}

func (podKind) SetGroupVersionKind(schema.GroupVersionKind) {}

func (podKind) GroupVersionKind() schema.GroupVersionKind { return kube.PodGVK() }

func podIPs(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	add := func(text string) {
		if ip, err := netip.ParseAddr(text); err == nil && !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	for _, ip := range pod.Status.PodIPs {
		add(ip.IP)
	}
	if len(out) == 0 {
		add(pod.Status.PodIP)
	}
	return out
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
