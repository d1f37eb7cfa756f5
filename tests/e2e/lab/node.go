package lab

import (
	"context"
	"fmt"
	"os/exec"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Workers are the names of the nodes that run workloads.
func (c *Cluster) Workers(ctx context.Context) ([]string, error) {
	list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "!node-role.kubernetes.io/control-plane"})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var out []string
	for _, n := range list.Items {
		out = append(out, n.Name)
	}
	return out, nil
}

// ControlPlaneNode is the name of the node that runs the API server.
func (c *Cluster) ControlPlaneNode(ctx context.Context) (string, error) {
	list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "node-role.kubernetes.io/control-plane"})
	if err != nil || len(list.Items) == 0 {
		return "", fmt.Errorf("find the control-plane node: %w", err)
	}
	return list.Items[0].Name, nil
}

// RestartNode reboots a node of kind and waits until it is ready again.
func (c *Cluster) RestartNode(ctx context.Context, name string) error {
	before, err := c.readySince(ctx, name)
	if err != nil {
		return err
	}
	if err := c.Docker(ctx, "restart", "--time", "5", name); err != nil {
		return err
	}
	// systemd does so on machines, and not in containers.
	if err := c.Docker(ctx, "exec", name, "sh", "-c", "mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf"); err != nil {
		return err
	}
	return Eventually(ctx, "node "+name+" is ready again", func(ctx context.Context) error {
		since, err := c.readySince(ctx, name)
		if err == nil && !since.After(before.Time) {
			err = fmt.Errorf("its state is the one of before")
		}
		return err
	})
}

// readySince is when a node's kubelet last reported that it is ready.
func (c *Cluster) readySince(ctx context.Context, name string) (metav1.Time, error) {
	n, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return metav1.Time{}, fmt.Errorf("get node %s: %w", name, err)
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return condition.LastHeartbeatTime, nil
		}
	}
	return metav1.Time{}, fmt.Errorf("node %s is not ready", name)
}

// Docker runs a command of the engine in which the nodes live.
func (c *Cluster) Docker(ctx context.Context, args ...string) error {
	_, err := c.DockerOutput(ctx, args...)
	return err
}

// DockerOutput is Docker, and returns what the command printed on both outputs.
func (c *Cluster) DockerOutput(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = cmd.Environ()
	if c.DockerHost != "" {
		cmd.Env = append(cmd.Env, "DOCKER_HOST="+c.DockerHost)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %v: %w: %s", args, err, out)
	}
	return string(out), nil
}
