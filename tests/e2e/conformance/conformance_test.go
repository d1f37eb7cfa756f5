//go:build e2e

package conformance

import (
	"context"
	"fmt"
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
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

const (
	// waypointNamespace holds the one waypoint that serves the suite's namespaces.
	waypointNamespace = "mesh-conformance"
	waypointName      = "waypoint"
	rolloutDeadline   = 3 * time.Minute
)

// TestMeshConformance runs the profiles MESH-HTTP and MESH-GRPC with every feature of a mesh that the suite knows.
func TestMeshConformance(t *testing.T) {
	options := gatewaysuite.DefaultOptions(t) // takes -report-output and its other flags, and the cluster of KUBECONFIG
	options.ConformanceProfiles = []suite.ConformanceProfileName{suite.MeshHTTPConformanceProfileName, suite.MeshGRPCConformanceProfileName}
	options.SupportedFeatures = supported()
	options.MeshName = "isthmus"
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
	gatewaysuite.RunConformanceWithOptions(t, options)
}

// supported are all features that the suite's mesh tests ask for.
func supported() []features.FeatureName {
	names := []features.FeatureName{
		features.SupportMesh, features.SupportHTTPRoute, features.SupportGRPCRoute, features.SupportReferenceGrant,
		features.SupportHTTPRouteResponseHeaderModification, features.SupportHTTPRouteParentRefPort,
		features.SupportHTTPRoute303RedirectStatusCode, features.SupportHTTPRoute307RedirectStatusCode, features.SupportHTTPRoute308RedirectStatusCode,
	}
	for _, f := range features.MeshExtendedFeatures.UnsortedList() {
		names = append(names, f.Name)
	}
	return names
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
