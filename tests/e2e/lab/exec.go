package lab

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// Pods lists the pods of a namespace that a selector matches and that are neither ending nor finished.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	list, err := c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods %s in %s: %w", selector, namespace, err)
	}
	var out []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			out = append(out, p)
		}
	}
	return out, nil
}

// Pod returns a ready pod that a selector matches.
func (c *Cluster) Pod(ctx context.Context, namespace, selector string) (*corev1.Pod, error) {
	pods, err := c.Pods(ctx, namespace, selector)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if Ready(&pods[i]) {
			return &pods[i], nil
		}
	}
	return nil, fmt.Errorf("no pod %s in %s is ready", selector, namespace)
}

// Ready tells whether a pod is.
func Ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Exec runs a command in the first container of a pod and returns its standard output. An error has what it wrote to the other one.
func (c *Cluster) Exec(ctx context.Context, namespace, pod string, command ...string) (string, error) {
	var out, problems bytes.Buffer
	req := c.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	run, err := remotecommand.NewSPDYExecutor(c.REST, "POST", req.URL())
	if err == nil {
		err = run.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &problems})
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s in pod %s/%s: %w: %s", strings.Join(command, " "), namespace, pod, err, problems.String())
	}
	return out.String(), nil
}

// ExecIn runs a command in a ready pod that a selector matches.
func (c *Cluster) ExecIn(ctx context.Context, namespace, selector string, command ...string) (string, error) {
	p, err := c.Pod(ctx, namespace, selector)
	if err != nil {
		return "", err
	}
	return c.Exec(ctx, namespace, p.Name, command...)
}

// Logs returns the last lines of all containers of the pods that a selector matches.
func (c *Cluster) Logs(ctx context.Context, namespace, selector string, lines int64) (string, error) {
	list, err := c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return "", fmt.Errorf("list pods %s in %s: %w", selector, namespace, err)
	}
	var b strings.Builder
	for i := range list.Items {
		for _, container := range list.Items[i].Spec.Containers {
			text, err := c.Client.CoreV1().Pods(namespace).GetLogs(list.Items[i].Name, &corev1.PodLogOptions{Container: container.Name, TailLines: &lines}).DoRaw(ctx)
			if err != nil {
				text = []byte(err.Error() + "\n")
			}
			b.Write(text)
		}
	}
	return b.String(), nil
}
