package reach

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// executor is a place that can run commands in pods.
type executor interface {
	execute(ctx context.Context, pod Pod, container string, argv []string, stdout, stderr io.Writer) (int, error)
}

// Exec runs a command in a container of a pod, the first if none is named, and returns its exit code.
func (m *Mesh) Exec(ctx context.Context, pod Pod, container string, argv []string, stdout, stderr io.Writer) (int, error) {
	ctx, cancel := m.bound(ctx)
	defer cancel()
	e, ok := m.place.(executor)
	if !ok {
		return 0, errors.New("commands cannot be run in its pods")
	}
	code, err := e.execute(ctx, pod, container, argv, stdout, stderr)
	if err != nil {
		return code, fmt.Errorf("run %s in pod %s: %w", argv[0], pod, late(ctx, err))
	}
	return code, nil
}

func (c *cluster) execute(ctx context.Context, pod Pod, container string, argv []string, stdout, stderr io.Writer) (int, error) {
	options := &corev1.PodExecOptions{Container: container, Command: argv, Stdout: true, Stderr: true}
	url := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(options, scheme.ParameterCodec).URL()
	old, err := remotecommand.NewSPDYExecutor(c.config, "POST", url)
	if err != nil {
		return 0, err
	}
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", url.String())
	if err != nil {
		return 0, err
	}
	either, err := remotecommand.NewFallbackExecutor(websocket, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return 0, err
	}
	err = either.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: stdout, Stderr: stderr})
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		return exit.Code, nil
	}
	return 0, err
}
