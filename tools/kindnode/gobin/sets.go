package gobin

import "strings"

// Versions of what a cluster is made of. The module files under modules/ are the pins; these names appear in image
// tags and in what the binaries say of themselves. Kubernetes 1.34 is the newest whose kubelet runs on cgroup v1.
const (
	KubernetesVersion = "v1.34.4"
	CrictlVersion     = "v1.36.0"
	HelmVersion       = "v4.2.4"
)

const modules = "tools/kindnode/modules/"

// Kubernetes is the seven programs of Kubernetes.
func Kubernetes() Set {
	return Set{
		Name:    "kubernetes",
		Dir:     modules + "k8s",
		LDFlags: kubernetesVersionFlags(KubernetesVersion),
		Packages: []string{
			"k8s.io/kubernetes/cmd/kube-apiserver",
			"k8s.io/kubernetes/cmd/kube-controller-manager",
			"k8s.io/kubernetes/cmd/kube-scheduler",
			"k8s.io/kubernetes/cmd/kube-proxy",
			"k8s.io/kubernetes/cmd/kubelet",
			"k8s.io/kubernetes/cmd/kubeadm",
			"k8s.io/kubernetes/cmd/kubectl",
		},
	}
}

// Etcd is the store of the API server.
func Etcd() Set { return Set{Name: "etcd", Dir: modules + "etcd", Packages: []string{"."}} }

// CoreDNS is the cluster's name server.
func CoreDNS() Set { return Set{Name: "coredns", Dir: modules + "coredns", Packages: []string{"."}} }

// NetworkPolicy is what enforces NetworkPolicies on a node.
func NetworkPolicy() Set {
	return Set{Name: "netpol", Dir: modules + "netpol", Packages: []string{"."}}
}

// Crictl is what kubeadm and people use to talk to containerd.
func Crictl() Set {
	return Set{
		Name:     "crictl",
		Dir:      modules + "crictl",
		LDFlags:  "-X sigs.k8s.io/cri-tools/pkg/version.Version=" + CrictlVersion,
		Packages: []string{"sigs.k8s.io/cri-tools/cmd/crictl"},
	}
}

// Helm is the program with which people install charts. It is no part of a node: tests use it.
func Helm() Set {
	return Set{
		Name:     "helm",
		Dir:      modules + "helm",
		LDFlags:  "-X helm.sh/helm/v4/internal/version.version=" + HelmVersion,
		Packages: []string{"helm.sh/helm/v4/cmd/helm"},
	}
}

// Istiod is Istio's control plane. It is no part of a node: ours is measured beside it.
func Istiod() Set {
	return Set{Name: "istiod", Dir: modules + "istiod", Packages: []string{"istio.io/istio/pilot/cmd/pilot-discovery"}}
}

// Own is what this project adds to a node: the network daemon and the pause program. It uses the standard library
// only, so that its inputs are its sources.
func Own() Set {
	return Set{
		Name:     "node programs",
		Dir:      "tools",
		Inputs:   []string{"kindnode/cmd/kindnetlite", "kindnode/cmd/pause", "kindnode/kindnetlite"},
		Packages: []string{"./kindnode/cmd/kindnetlite", "./kindnode/cmd/pause"},
	}
}

// RuncWrapper is the runtime that a private docker daemon uses on a machine without CAP_SYS_RESOURCE.
func RuncWrapper() Set {
	return Set{
		Name:     "runc wrapper",
		Dir:      "tools",
		Inputs:   []string{"kindnode/cmd/runc-wrapper", "kindnode/runcshim"},
		Packages: []string{"./kindnode/cmd/runc-wrapper"},
	}
}

// All is every set that a node image is made from.
func All() []Set { return []Set{Kubernetes(), Etcd(), CoreDNS(), Crictl(), NetworkPolicy(), Own()} }

func kubernetesVersionFlags(version string) string {
	minor := strings.Split(strings.TrimPrefix(version, "v"), ".")
	values := []string{
		"gitVersion=" + version, "gitMajor=" + minor[0], "gitMinor=" + minor[1], "gitTreeState=clean",
		"gitCommit=" + strings.Repeat("0", 40), "buildDate=2026-01-01T00:00:00Z",
	}
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range values {
			flags = append(flags, "-X "+pkg+"."+v)
		}
	}
	return strings.Join(flags, " ")
}
