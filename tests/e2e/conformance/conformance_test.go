//go:build e2e

package conformance

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewaysuite "sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
)

const (
	// waypointNamespace holds the one waypoint that serves the suite's namespaces.
	waypointNamespace = "mesh-conformance"
	waypointName      = "waypoint"
	gatewayClass      = "istio"
	rolloutDeadline   = 3 * time.Minute
)

// TestConformance runs the profiles of gateways and of meshes together, with every feature that is claimed: namespaces are in the
// mesh, and gateways lead into it.
func TestConformance(t *testing.T) {
	options := gatewaysuite.DefaultOptions(t) // takes -report-output and its other flags, and the cluster of KUBECONFIG
	if len(options.ConformanceProfiles) == 0 {
		for _, p := range profiles() {
			options.ConformanceProfiles = append(options.ConformanceProfiles, p.Name)
		}
	}
	options.SupportedFeatures = supported()
	options.MeshName = "isthmus"
	options.ManifestFS = []fs.FS{manifests()}
	options.GatewayClassName = gatewayClass
	options.NamespaceLabels = map[string]string{
		"istio.io/dataplane-mode":         "ambient",
		"istio.io/use-waypoint":           waypointName,
		"istio.io/use-waypoint-namespace": waypointNamespace,
	}
	if options.Implementation.Version == "" {
		options.Implementation.Version = "dev" // -version says another one
	}
	options.Implementation = confv1.Implementation{
		Organization: "isthmus-mesh", Project: "isthmus", URL: "https://github.com/isthmus-mesh/isthmus",
		Version: options.Implementation.Version, Contact: []string{"https://github.com/isthmus-mesh/isthmus/issues"},
	}
	deployWaypoint(t, options.Client, options.Clientset)
	runLoadBalancer(t, options.Clientset)
	t.Cleanup(func() { explain(t, options.ReportOutputPath) }) // before the suite's own, thus after it has written the report
	gatewaysuite.RunConformanceWithOptions(t, options)
}

// explain puts the reasons for which features are not claimed before the report.
func explain(t *testing.T, report string) {
	t.Log(reasons())
	if report == "" {
		return
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Errorf("the report: %v", err)
		return
	}
	if err := os.WriteFile(report, append([]byte(reasons()), text...), 0o600); err != nil {
		t.Errorf("the report: %v", err)
	}
}

// deployWaypoint asks for the waypoint and waits until it serves.
func deployWaypoint(t *testing.T, c client.Client, k kubernetes.Interface) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rolloutDeadline)
	defer cancel()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: waypointNamespace}}
	all := gatewayv1.NamespacesFromAll
	gateway := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: waypointName, Namespace: waypointNamespace, Labels: map[string]string{"istio.io/waypoint-for": "service"}},
		Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "istio-waypoint",
			Listeners: []gatewayv1.Listener{{
				Name: "mesh", Port: 15008, Protocol: "HBONE",
				AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}},
			}},
		},
	}
	for _, o := range []client.Object{namespace, gateway} {
		if err := client.IgnoreAlreadyExists(c.Create(ctx, o)); err != nil {
			t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
	t.Cleanup(func() {
		_ = k.CoreV1().Namespaces().Delete(context.Background(), waypointNamespace, metav1.DeleteOptions{})
	})
	last := "it does not exist"
	for {
		d, err := k.AppsV1().Deployments(waypointNamespace).Get(ctx, waypointName, metav1.GetOptions{})
		if err == nil {
			if available(d) {
				return
			}
			last = fmt.Sprintf("%d of %d replicas are available", d.Status.AvailableReplicas, d.Status.Replicas)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the waypoint %s/%s is not ready: %s", waypointNamespace, waypointName, last)
		case <-time.After(time.Second):
		}
	}
}

func available(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration >= d.Generation && d.Status.AvailableReplicas > 0
}
