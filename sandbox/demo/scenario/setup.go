package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const namespaces = `apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: Namespace
metadata: {name: late}
`

// Setup applies Bookinfo and the helpers, and waits until all is ready.
func (b *Bed) Setup(ctx context.Context) error {
	if err := b.apply(ctx, "namespaces.yaml", namespaces); err != nil {
		return err
	}
	for _, part := range []struct{ namespace, file string }{
		{"default", "bookinfo/platform/kube/bookinfo.yaml"},
		{"default", "curl/curl.yaml"},
		{"default", "tcp-echo/tcp-echo.yaml"},
		{"default", "httpbin/httpbin.yaml"},
		{outsideNamespace, "curl/curl.yaml"},
		{lateNamespace, "curl/curl.yaml"},
		{lateNamespace, "tcp-echo/tcp-echo.yaml"},
	} {
		data, err := os.ReadFile(filepath.Join(b.Samples, part.file))
		if err != nil {
			return err
		}
		if _, err := b.Sandbox.ApplyTo(ctx, part.namespace, part.file, data); err != nil {
			return fmt.Errorf("apply %s: %w", part.file, err)
		}
	}
	for _, namespace := range []string{"default", outsideNamespace, lateNamespace} {
		if err := b.Sandbox.WaitReady(ctx, namespace); err != nil {
			return fmt.Errorf("wait for namespace %s: %w", namespace, err)
		}
	}
	return nil
}

// All runs every check, in order.
func (b *Bed) All(ctx context.Context) {
	steps := []func(context.Context){b.Wire, b.Policy, b.Strict, b.Enrol, b.Upgrade, b.Drain, b.Outage}
	if b.L7 {
		// Last: a waypoint is the caller of what is behind it, so the policies of L4 above would mean something else.
		steps = append(steps, b.Ingress, b.Waypoint, b.Faults, b.L7Policy, b.Telemetry, b.Change, b.FailClosed)
	}
	for _, step := range steps {
		if ctx.Err() == nil {
			step(ctx)
		}
	}
}
