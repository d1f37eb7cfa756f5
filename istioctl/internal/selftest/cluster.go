package selftest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/operator/crds"
)

// oldest is the minor version of Kubernetes from which the mesh is tested.
const oldest = 30

func apiServer(_ context.Context, s *Subject) []Result {
	client, ok := s.Mesh.Kubernetes()
	if !ok {
		return noCluster()
	}
	v, err := client.Discovery().ServerVersion()
	if err != nil {
		return one(bad("Look at the kubeconfig (--kubeconfig, --context) and whether the cluster runs", "the API does not answer: %v", err))
	}
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	if err == nil && v.Major == "1" && minor < oldest {
		return one(warning(fmt.Sprintf("Upgrade Kubernetes to 1.%d or newer", oldest), "%s is older than what the mesh is tested with", v.GitVersion))
	}
	return one(good("%s", v.GitVersion))
}

type right struct{ verb, group, resource, sub string }

func rights(ctx context.Context, s *Subject) []Result {
	return may(ctx, s, "Ask for these rights: without them some commands cannot look", []right{
		{"list", "", "pods", ""},
		{"get", "", "configmaps", ""},
		{"create", "", "pods", "portforward"},
		{"get", "", "pods", "log"},
		{"list", "gateway.networking.k8s.io", "gateways", ""},
	})
}

func rightsToInstall(ctx context.Context, s *Subject) []Result {
	return may(ctx, s, "Ask for these rights, or have an administrator install (istioctl manifest generate prints what)", []right{
		{"create", "", "namespaces", ""},
		{"create", "rbac.authorization.k8s.io", "clusterroles", ""},
		{"create", "rbac.authorization.k8s.io", "clusterrolebindings", ""},
		{"create", "apiextensions.k8s.io", "customresourcedefinitions", ""},
		{"create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", ""},
		{"create", "apps", "daemonsets", ""},
		{"create", "apps", "deployments", ""},
		{"create", "", "services", ""},
		{"create", "", "configmaps", ""},
		{"create", "", "serviceaccounts", ""},
	})
}

func may(ctx context.Context, s *Subject, remedy string, wanted []right) []Result {
	client, ok := s.Mesh.Kubernetes()
	if !ok {
		return noCluster()
	}
	var missing []string
	for _, r := range wanted {
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: s.IstioNamespace, Verb: r.verb, Group: r.group, Resource: r.resource, Subresource: r.sub,
			}},
		}, metav1.CreateOptions{})
		if err != nil {
			return failed(err)
		}
		if !review.Status.Allowed {
			missing = append(missing, strings.TrimSuffix(r.verb+" "+r.resource+"/"+r.sub, "/"))
		}
	}
	if len(missing) > 0 {
		return one(bad(remedy, "you may not %s", strings.Join(missing, ", ")))
	}
	return one(good("all of %d", len(wanted)))
}

// definitions looks for the kinds that the control plane reads.
func definitions(ctx context.Context, s *Subject) []Result {
	if _, ok := s.Mesh.Kubernetes(); !ok {
		return noCluster()
	}
	var missing []string
	found := 0
	for _, k := range kindsOfIstio() {
		served, err := s.Mesh.Served(ctx, k.group)
		if err != nil {
			return failed(err)
		}
		for _, resource := range k.resources {
			if len(served[resource]) == 0 {
				missing = append(missing, resource+"."+k.group)
			} else {
				found++
			}
		}
	}
	if len(missing) > 0 {
		return one(bad("Install the mesh, or its definitions: istioctl manifest generate --filter Base | kubectl apply --server-side -f -", "the cluster does not know %s", few(missing)))
	}
	return one(good("%d kinds", found))
}

type group struct {
	group     string
	resources []string
}

func kindsOfIstio() []group {
	return []group{
		{"networking.istio.io", []string{"destinationrules", "gateways", "serviceentries", "sidecars", "virtualservices", "workloadentries"}},
		{"security.istio.io", []string{"authorizationpolicies", "peerauthentications", "requestauthentications"}},
		{"telemetry.istio.io", []string{"telemetries"}},
	}
}

func gatewayAPI(ctx context.Context, s *Subject) []Result {
	if _, ok := s.Mesh.Kubernetes(); !ok {
		return noCluster()
	}
	const remedy = "Install it: istioctl manifest gateway-api | kubectl apply --server-side -f -"
	served, err := s.Mesh.Served(ctx, "gateway.networking.k8s.io")
	if err != nil {
		return failed(err)
	}
	if !slices.Contains(served["gateways"], "v1") || !slices.Contains(served["httproutes"], "v1") {
		return one(warning(remedy, "it is not installed in version v1: waypoints and gateways cannot be asked for"))
	}
	definition, err := s.Mesh.Read(ctx, reach.Kind{
		Group: "apiextensions.k8s.io", Version: "v1", Name: "CustomResourceDefinition", Plural: "customresourcedefinitions", Cluster: true,
	}, "", "gateways.gateway.networking.k8s.io")
	if err != nil {
		return one(good("it is installed"))
	}
	have, ours := definition.GetAnnotations()["gateway.networking.k8s.io/bundle-version"], bundleVersion(string(crds.GatewayAPI))
	return one(good("%s (this program has %s)", have, ours))
}

// bundleVersion finds the version in definitions of the Gateway API.
func bundleVersion(text string) string {
	_, rest, _ := strings.Cut(text, "gateway.networking.k8s.io/bundle-version:")
	version, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(version)
}

// kernels looks at what the redirection of pods needs of the nodes.
func kernels(ctx context.Context, s *Subject) []Result {
	if _, ok := s.Mesh.Kubernetes(); !ok {
		return noCluster()
	}
	nodes, err := s.theNodes(ctx)
	if err != nil {
		return failed(err)
	}
	var other, old []string
	for _, n := range nodes {
		info := n.Status.NodeInfo
		if info.OperatingSystem != "" && info.OperatingSystem != "linux" {
			other = append(other, n.Name)
			continue
		}
		if olderKernel(info.KernelVersion, 5, 4) {
			old = append(old, n.Name+" ("+info.KernelVersion+")")
		}
	}
	switch {
	case len(old) > 0:
		return one(bad("Upgrade the kernel of these nodes to 5.4 or newer", "kernels are too old for redirection by nftables: %s", few(old)))
	case len(other) > 0:
		return one(warning("Pods on these nodes stay outside the mesh", "not Linux: %s", few(other)))
	}
	return one(good("%d of Linux", len(nodes)))
}

func olderKernel(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, errA := strconv.Atoi(parts[0])
	b, errB := strconv.Atoi(strings.FieldsFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' })[0])
	return errA == nil && errB == nil && (a < major || a == major && b < minor)
}

// maxSkew is how far the clocks of nodes may differ; nodes tell of theirs every 10 s.
const maxSkew = 45 * time.Second

// clocks compares the times at which nodes renewed their leases: certificates are of no use to whose clock is behind.
func clocks(ctx context.Context, s *Subject) []Result {
	client, ok := s.Mesh.Kubernetes()
	if !ok {
		return noCluster()
	}
	leases, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{Limit: 5000})
	if err != nil {
		return one(Result{State: Skipped, Detail: err.Error()})
	}
	var ahead, behind []string
	for _, l := range leases.Items {
		if l.Spec.RenewTime == nil {
			continue
		}
		switch d := l.Spec.RenewTime.Sub(s.Now); {
		case d > maxSkew:
			ahead = append(ahead, l.Name)
		case d < -maxSkew:
			behind = append(behind, l.Name)
		}
	}
	const remedy = "Look whether the nodes run, and their clocks are synchronised (NTP), as well as this machine's"
	switch {
	case len(ahead) > 0:
		return one(bad(remedy, "ahead of this machine by more than %s: %s", maxSkew, few(ahead)))
	case len(behind) > 0:
		return one(warning(remedy, "not heard of for more than %s, or behind: %s", maxSkew, few(behind)))
	}
	return one(good("%d nodes are within %s", len(leases.Items), maxSkew))
}

// hbonePort is where pods in the mesh take connections.
const hbonePort = 15008

// networkPolicies looks for those that cut pods off from the mesh.
func networkPolicies(ctx context.Context, s *Subject) []Result {
	client, ok := s.Mesh.Kubernetes()
	if !ok {
		return noCluster()
	}
	meshed, err := meshedPods(ctx, s)
	if err != nil {
		return failed(err)
	}
	var blocking []string
	options := metav1.ListOptions{Limit: 500}
	for {
		list, err := client.NetworkingV1().NetworkPolicies("").List(ctx, options)
		if err != nil {
			return failed(err)
		}
		for i := range list.Items {
			if p := &list.Items[i]; blocks(p, meshed[p.Namespace]) {
				blocking = append(blocking, p.Namespace+"/"+p.Name)
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	if len(blocking) > 0 {
		return one(warning(fmt.Sprintf("Allow TCP port %d in them: connections from the mesh arrive there", hbonePort), "they keep the mesh out of pods in it: %s", few(blocking)))
	}
	return one(good("none keeps the mesh out"))
}

// blocks tells whether a policy selects pods of the mesh, and none of its rules is for their port. Rules with other ports may still let
// connections in that are in the clear.
func blocks(p *networkingv1.NetworkPolicy, meshed []*corev1.Pod) bool {
	if len(p.Spec.PolicyTypes) > 0 && !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	if err != nil || !slices.ContainsFunc(meshed, func(pod *corev1.Pod) bool { return selector.Matches(labels.Set(pod.Labels)) }) {
		return false
	}
	for _, rule := range p.Spec.Ingress {
		if len(rule.Ports) == 0 {
			return false
		}
		for _, port := range rule.Ports {
			if port.Port == nil || port.Port.IntVal <= hbonePort && port.EndPort != nil && *port.EndPort >= hbonePort || port.Port.IntVal == hbonePort {
				return false
			}
		}
	}
	return true
}

// meshedPods are the pods that are in the mesh, by namespace.
func meshedPods(ctx context.Context, s *Subject) (map[string][]*corev1.Pod, error) {
	out := map[string][]*corev1.Pod{}
	err := all(ctx, s, "Pod", func(p *corev1.Pod) {
		if p.Annotations[redirection] == "enabled" {
			out[p.Namespace] = append(out[p.Namespace], &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels}})
		}
	})
	if errors.Is(err, reach.ErrNotFound) {
		err = nil
	}
	return out, err
}
