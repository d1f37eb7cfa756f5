package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// proxiesTimeout is how long istioctl may collect what the mesh's processes have.
const proxiesTimeout = "2m"

// BugReport writes what explains a failure into a directory: logs of all containers, the present and the former ones, events, objects of
// the kinds that matter, and what istioctl bug-report collects, which is the configuration of istiod and of every proxy. What could not
// be collected is listed in not-collected.txt.
func (c *Cluster) BugReport(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the report's directory: %w", err)
	}
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var problems []string
	for i := range pods.Items {
		problems = append(problems, c.reportPod(ctx, dir, &pods.Items[i])...)
	}
	for _, r := range reported() {
		list, err := c.Dynamic.Resource(r).List(ctx, metav1.ListOptions{})
		if err != nil {
			problems = append(problems, fmt.Sprintf("list %s: %v", r.Resource, err))
			continue
		}
		for i := range list.Items {
			list.Items[i].SetManagedFields(nil)
		}
		text, err := yaml.Marshal(list)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, r.Resource+".yaml"), text, 0o600)
		}
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	if _, err := c.RunIstioctl(ctx, "bug-report", "--dir", filepath.Join(dir, "mesh"), "--output-dir", dir, "--timeout", proxiesTimeout); err != nil {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		return os.WriteFile(filepath.Join(dir, "not-collected.txt"), []byte(strings.Join(problems, "\n")), 0o600)
	}
	return nil
}

// reported are the kinds that are written down. Secrets are not.
func reported() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Version: "v1", Resource: "pods"},
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "events"},
		{Version: "v1", Resource: "nodes"},
		{Version: "v1", Resource: "namespaces"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "apps", Version: "v1", Resource: "daemonsets"},
		{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
		{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
		{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"},
	}
}

// reportPod writes the logs of a pod's containers.
func (c *Cluster) reportPod(ctx context.Context, dir string, p *corev1.Pod) (problems []string) {
	write := func(name string, data []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, strings.Join([]string{p.Namespace, p.Name, name}, "_")), data, 0o600)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s/%s %s: %v", p.Namespace, p.Name, name, err))
		}
	}
	for _, container := range p.Spec.Containers {
		text, err := c.Client.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container.Name}).DoRaw(ctx)
		write(container.Name+".log", text, err)
		for _, s := range p.Status.ContainerStatuses {
			if s.Name == container.Name && s.RestartCount > 0 {
				text, err := c.Client.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container.Name, Previous: true}).DoRaw(ctx)
				write(container.Name+".previous.log", text, err)
			}
		}
	}
	return problems
}
