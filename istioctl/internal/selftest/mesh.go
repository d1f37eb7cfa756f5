package selftest

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

const (
	redirection = "ambient.istio.io/redirection"
	labelMode   = "istio.io/dataplane-mode"
	rootMap     = "istio-ca-root-cert"
	// soon is how long before a root expires one should know.
	soon = 30 * 24 * time.Hour
)

func istiod(ctx context.Context, s *Subject) []Result {
	pods, err := s.Mesh.Istiod(ctx, s.IstioNamespace, "")
	if err != nil {
		return one(bad("Install the mesh: istioctl install --set profile=ambient; or name the control plane's namespace: --istioNamespace", "%v", err))
	}
	var unready []string
	for _, p := range pods {
		if !p.Ready {
			unready = append(unready, p.Name)
		}
	}
	if len(unready) == len(pods) {
		return one(bad("Look at its log: kubectl logs -n "+s.IstioNamespace+" deploy/istiod", "no pod of the control plane is ready: %s", few(unready)))
	}
	if len(unready) > 0 {
		return one(warning("Look at their logs", "not ready: %s", few(unready)))
	}
	return one(good("%d ready", len(pods)))
}

// versions compares those of this program and the control plane.
func versions(ctx context.Context, s *Subject) []Result {
	pods, err := s.Mesh.Istiod(ctx, s.IstioNamespace, "")
	if err != nil {
		return one(Result{State: Skipped, Detail: "there is no control plane"})
	}
	found := map[string]bool{}
	for _, p := range pods {
		data, err := s.Mesh.Get(ctx, p, reach.MonitoringPort, "/version")
		if err != nil {
			return failed(err)
		}
		var v struct {
			Version string `json:"version"`
		}
		if json.Unmarshal(data, &v) != nil || v.Version == "" {
			v.Version = strings.TrimSpace(string(data))
		}
		found[v.Version] = true
	}
	all := slices.Sorted(maps.Keys(found))
	if len(all) != 1 || all[0] != s.Version {
		return one(warning("Use the istioctl of the mesh's version, or upgrade: istioctl upgrade", "this program is %s, the control plane %s", s.Version, strings.Join(all, ", ")))
	}
	return one(good("%s", s.Version))
}

// problems are those that the control plane has with objects.
func problems(ctx context.Context, s *Subject) []Result {
	pods, err := s.Mesh.Istiod(ctx, s.IstioNamespace, "")
	if err != nil {
		return one(Result{State: Skipped, Detail: "there is no control plane"})
	}
	data, err := s.Mesh.Get(ctx, pods[0], reach.DebugPort, "/debug/problemz")
	if err != nil {
		return one(Result{State: Skipped, Detail: "this control plane does not tell"})
	}
	var found map[string][]string
	if err := json.Unmarshal(data, &found); err != nil {
		return failed(err)
	}
	if len(found) > 0 {
		return one(warning("Look: istioctl analyze -A, and istioctl x internal-debug problemz", "the control plane has problems with %s", few(slices.Collect(maps.Keys(found)))))
	}
	return one(good("the control plane has no problem with any object"))
}

// webhooks looks whether the API server can call those of the control plane.
func webhooks(ctx context.Context, s *Subject) []Result {
	client, ok := s.Mesh.Kubernetes()
	if !ok {
		return noCluster()
	}
	list, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: "app=istiod"})
	if err != nil {
		return failed(err)
	}
	if len(list.Items) == 0 {
		return one(warning("Install it: istioctl upgrade", "there is no validating webhook: mistakes in objects are not refused"))
	}
	var out []Result
	for _, c := range list.Items {
		for _, w := range c.Webhooks {
			switch {
			case len(w.ClientConfig.CABundle) == 0:
				out = append(out, bad("Look at the log of istiod, which writes it: is it the leader, and may it?", "%s has no caBundle: the API server cannot call it", c.Name))
			case expires(w.ClientConfig.CABundle, s.Now):
				out = append(out, bad("Renew the root certificate", "the caBundle of %s has expired or is none", c.Name))
			case w.FailurePolicy != nil && *w.FailurePolicy == "Ignore":
				out = append(out, warning("Wait until istiod finds the webhook reachable from the API server; if it stays so, look at its log", "%s is not in force yet (failurePolicy Ignore)", c.Name))
			}
		}
	}
	if len(out) == 0 {
		return one(good("%d in force", len(list.Items)))
	}
	return out
}

// expires tells whether no certificate of a bundle is valid.
func expires(bundle []byte, now time.Time) bool {
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return true
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && now.Before(c.NotAfter) {
			return false
		}
	}
}

// perNode looks whether each node has a pod of a DaemonSet that is ready.
func perNode(ctx context.Context, s *Subject, selector, what, daemonset string) []Result {
	nodes, err := s.theNodes(ctx)
	if err != nil && !errors.Is(err, reach.ErrNotFound) {
		return failed(err)
	}
	pods, err := s.Mesh.Pods(ctx, s.IstioNamespace, selector)
	if err == nil && len(pods) == 0 {
		pods, err = s.Mesh.Pods(ctx, "", selector) // the CNI agent may be in another namespace
	}
	if err != nil {
		return failed(err)
	}
	if len(pods) == 0 {
		return one(bad("Install the mesh with --set profile=ambient", "no %s runs", what))
	}
	ready := map[string]bool{}
	var unready []string
	for _, p := range pods {
		ready[p.Node] = ready[p.Node] || p.Ready
	}
	for node, good := range ready {
		if !good {
			unready = append(unready, node)
		}
	}
	for _, n := range nodes {
		if _, runs := ready[n.Name]; !runs && n.Status.NodeInfo.OperatingSystem != "windows" {
			unready = append(unready, n.Name)
		}
	}
	if len(unready) > 0 {
		return one(bad(fmt.Sprintf("Look: kubectl get pods -n %s -o wide -l %s; kubectl describe daemonset -n %s %s", s.IstioNamespace, selector, s.IstioNamespace, daemonset),
			"no %s is ready on %s: pods there neither join the mesh nor are reached through it", what, few(unready)))
	}
	return one(good("ready on all of %d nodes", len(ready)))
}

func agents(ctx context.Context, s *Subject) []Result {
	return perNode(ctx, s, "k8s-app=istio-cni-node", "CNI agent", "istio-cni-node")
}

func ztunnels(ctx context.Context, s *Subject) []Result {
	return perNode(ctx, s, "app=ztunnel", "ztunnel", "ztunnel")
}

// proxies looks whether the proxies are connected and have what was sent.
func proxies(ctx context.Context, s *Subject) []Result {
	pods, err := s.Mesh.Istiod(ctx, s.IstioNamespace, "")
	if err != nil {
		return one(Result{State: Skipped, Detail: "there is no control plane"})
	}
	connected := map[string]bool{}
	var refused []string
	for _, p := range pods {
		data, err := s.Mesh.Get(ctx, p, reach.DebugPort, "/debug/syncz")
		if err != nil {
			return failed(err)
		}
		all, err := dump.ReadSync(data, p.Name)
		if err != nil {
			return failed(err)
		}
		for _, one := range all {
			connected[one.Name] = true
		}
		refused = append(refused, dump.Refusals(all)...)
	}
	nodes, err := s.Mesh.Pods(ctx, s.IstioNamespace, "app=ztunnel")
	if err != nil {
		return failed(err)
	}
	gateways, err := s.Mesh.Pods(ctx, "", "gateway.networking.k8s.io/gateway-name")
	if err != nil {
		return failed(err)
	}
	var missing []string
	for _, p := range append(nodes, gateways...) {
		if !connected[p.String()] {
			missing = append(missing, p.String())
		}
	}
	var out []Result
	if len(missing) > 0 {
		out = append(out, bad("Look at their logs, and whether they reach port 15012 of istiod", "not connected to the control plane: %s", few(missing)))
	}
	if len(refused) > 0 {
		out = append(out, bad("Look: istioctl proxy-status", "%s", few(refused)))
	}
	if len(out) == 0 {
		return one(good("%d connected", len(connected)))
	}
	return out
}

// rootCertificate looks for the ConfigMap that proxies trust the control plane by.
func rootCertificate(ctx context.Context, s *Subject) []Result {
	if _, ok := s.Mesh.Kubernetes(); !ok {
		return noCluster()
	}
	text := func(namespace string) (string, error) {
		o, err := s.Mesh.Read(ctx, reach.ConfigMap(), namespace, rootMap)
		if err != nil {
			return "", err
		}
		data, _ := o.Object["data"].(map[string]any)
		root, _ := data["root-cert.pem"].(string)
		return root, nil
	}
	if result, ok := trustBundle(ctx, s); ok {
		return result
	}
	const remedy = "istiod writes it into every namespace: look at its log"
	root, err := text(s.IstioNamespace)
	if err != nil {
		return one(bad(remedy, "%v", err))
	}
	if expires([]byte(root), s.Now) {
		return one(bad("Renew the root certificate", "the root certificate has expired or is none"))
	}
	var wrong []string
	checked := 0
	err = all(ctx, s, "Namespace", func(n *corev1.Namespace) {
		if n.Labels[labelMode] != "ambient" || n.DeletionTimestamp != nil {
			return
		}
		checked++
		if theirs, err := text(n.Name); err != nil || theirs != root {
			wrong = append(wrong, n.Name)
		}
	})
	if err != nil {
		return failed(err)
	}
	result := good("it is in all of %d namespaces of the mesh", checked)
	if len(wrong) > 0 {
		result = bad(remedy, "ConfigMap %s is missing or old in %s", rootMap, few(wrong))
	}
	if expires([]byte(root), s.Now.Add(soon)) {
		return []Result{result, warning("Plan to renew it", "the root certificate expires within %d days", int(soon.Hours()/24))}
	}
	return one(result)
}

// certificates looks at those that ztunnels hold.
func certificates(ctx context.Context, s *Subject) []Result {
	pods, err := s.Mesh.Pods(ctx, s.IstioNamespace, "app=ztunnel")
	if err != nil {
		return failed(err)
	}
	var wrong, silent []string
	held := 0
	for _, p := range pods {
		data, err := s.Mesh.Get(ctx, p, reach.AdminPort, "/config_dump")
		var z *dump.Ztunnel
		if err == nil {
			z, err = dump.ReadZtunnel(data)
		}
		if err != nil {
			silent = append(silent, p.Name)
			continue
		}
		n, bad := z.InvalidCertificates(s.Now)
		held += n
		wrong = append(wrong, bad...)
	}
	var out []Result
	if len(wrong) > 0 {
		out = append(out, bad("Look at the logs of ztunnel and istiod: why are they not renewed?", "%s", few(wrong)))
	}
	if len(silent) > 0 {
		out = append(out, warning("Look whether they run", "could not be asked: %s", few(silent)))
	}
	if len(out) == 0 {
		return one(good("%d in use are valid", held))
	}
	return out
}

// enrolment looks for pods that are to be in the mesh and are not.
func enrolment(ctx context.Context, s *Subject) []Result {
	modes := map[string]string{}
	if err := all(ctx, s, "Namespace", func(n *corev1.Namespace) { modes[n.Name] = n.Labels[labelMode] }); err != nil {
		return failed(err)
	}
	enrolled := 0
	var pending []string
	err := all(ctx, s, "Pod", func(p *corev1.Pod) {
		mode := modes[p.Namespace]
		if own := p.Labels[labelMode]; own != "" {
			mode = own
		}
		_, gateway := p.Labels["gateway.networking.k8s.io/gateway-name"]
		switch {
		case p.Annotations[redirection] == "enabled":
			enrolled++
		case mode != "ambient", gateway, p.Spec.HostNetwork, p.Status.Phase != corev1.PodRunning, p.DeletionTimestamp != nil, p.Annotations["sidecar.istio.io/status"] != "":
		default:
			pending = append(pending, p.Namespace+"/"+p.Name)
		}
	})
	if err != nil {
		return failed(err)
	}
	if len(pending) > 0 {
		return one(bad("Look at the log of the CNI agent on their nodes; replacing the pods enrols them anew", "they ask for the mesh and are not in it: %s", few(pending)))
	}
	return one(good("%d pods are in the mesh, none waits", enrolled))
}

// waypoints looks whether those that are asked for serve.
func waypoints(ctx context.Context, s *Subject) []Result {
	found := 0
	var wrong []string
	err := all(ctx, s, "Gateway", func(g *gatewayv1.Gateway) {
		if g.Spec.GatewayClassName != "istio-waypoint" {
			return
		}
		found++
		for _, c := range g.Status.Conditions {
			if c.Type == "Programmed" && c.Status == metav1.ConditionTrue {
				return
			}
		}
		wrong = append(wrong, g.Namespace+"/"+g.Name)
	})
	if err != nil && !errors.Is(err, reach.ErrNotFound) {
		return failed(err)
	}
	if len(wrong) > 0 {
		return one(bad("Look: istioctl waypoint status -A --wait=false", "not ready: %s; what is bound to them is not reached", few(wrong)))
	}
	return one(good("%d, all ready", found))
}
