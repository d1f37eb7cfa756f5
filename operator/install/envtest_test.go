//go:build envtest

package install_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/operator/install"
	"github.com/isthmus-mesh/isthmus/operator/iop"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// server is the API server of all tests; set once by TestMain. Each test leaves it as it was.
var server *apiserver.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(m, func(s *apiserver.Server) { server = s }, kubetest.WithoutCRDs()))
}

// patience bounds what is waited for.
const patience = 5 * time.Minute

// noWait: nothing runs pods here.
func noWait() install.Options { return install.Options{Timeout: -1} }

func connect(t *testing.T) *install.Cluster {
	t.Helper()
	c, err := install.Connect(server.REST())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func installation(t *testing.T, set ...string) *render.Installation {
	t.Helper()
	op, err := iop.Read(nil, set)
	if err != nil {
		t.Fatal(err)
	}
	what, err := render.Render(op, render.Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return what
}

// inventory lists every object of the cluster, but those that the API server itself makes, at its start and all the time.
func inventory(t *testing.T) map[string]string {
	t.Helper()
	info, err := discovery.NewDiscoveryClientForConfig(server.REST())
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(server.REST())
	if err != nil {
		t.Fatal(err)
	}
	out, own := map[string]string{}, []string{"Event", "ComponentStatus", "APIService", "FlowSchema", "PriorityLevelConfiguration", "ServiceCIDR", "IPAddress"}
	for _, list := range resources(t, info) {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || strings.Contains(r.Name, "/") || slices.Contains(own, r.Kind) {
				continue
			}
			items, err := client.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				continue // its definition has just gone
			}
			if err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
			for _, u := range items.Items {
				if name := u.GetNamespace() + "/" + u.GetName(); !ofTheServer(name) {
					out[r.Kind+" "+name] = u.GetResourceVersion()
				}
			}
		}
	}
	return out
}

// resources are all that are served; the list is asked for again while a definition comes or goes.
func resources(t *testing.T, info *discovery.DiscoveryClient) (lists []*metav1.APIResourceList) {
	t.Helper()
	var err error
	wait.Until(t, patience, "the API server says what it serves", func() bool {
		lists, err = info.ServerPreferredResources()
		return err == nil
	}, func() string { return fmt.Sprint(err) })
	return lists
}

// ofTheServer tells whether the API server makes an object of this name: its namespaces, roles, leases and Service come a moment after
// it says that it is ready.
func ofTheServer(name string) bool {
	return strings.HasPrefix(name, "/kube-") || strings.HasPrefix(name, "kube-") || strings.HasPrefix(name, "/system:") || strings.HasPrefix(name, "default/kubernetes") ||
		slices.Contains([]string{"/default", "/cluster-admin", "/admin", "/edit", "/view"}, name)
}

func more(now, before map[string]string) []string {
	var out []string
	for name := range now {
		if _, ok := before[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func namespace(t *testing.T, name string) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(server.REST())
	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// TestDryRun: the API server accepts every object of every profile.
func TestDryRun(t *testing.T) {
	namespace(t, "istio-system")
	c := connect(t)
	before := inventory(t)
	for _, profile := range iop.Profiles() {
		crds := fmt.Sprintf("values.base.enableCRDTemplates=%t", profile == "ambient") // they are large, and the same
		what := installation(t, crds, "profile="+profile, "values.global.remotePilotAddress=192.0.2.7", "values.global.networkPolicy.enabled=true", "values.global.platform=gke")
		if err := c.Install(t.Context(), what, install.Options{DryRun: true}); err != nil {
			t.Errorf("%s: %v", profile, err)
		}
	}
	if got := more(inventory(t), before); len(got) > 0 {
		t.Errorf("a dry run left %v", got)
	}
}

// TestPurge: nothing is left of an installation and of what it made, but namespaces.
func TestPurge(t *testing.T) {
	namespace(t, "istio-system")
	namespace(t, "other")
	before := inventory(t)
	c := connect(t)
	if err := c.Install(t.Context(), installation(t, "profile=demo", "components.cni.enabled=true", "components.ztunnel.enabled=true"), noWait()); err != nil {
		t.Fatal(err)
	}
	if err := c.Install(t.Context(), installation(t, "profile=minimal", "revision=canary", "values.base.enableCRDTemplates=false"), noWait()); err != nil {
		t.Fatal(err)
	}
	leave(t)
	removal, err := c.FindAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if removal.Resources["VirtualService"] != 1 {
		t.Errorf("objects that go with their definitions: %v", removal.Resources)
	}
	if err := c.Remove(t.Context(), removal, noWait()); err != nil {
		t.Fatal(err)
	}
	// What goes with its definition is removed by the API server.
	var left []string
	wait.Until(t, patience, "nothing is left", func() bool { left = more(inventory(t), before); return len(left) == 0 }, func() string { return strings.Join(left, "\n") })
}

// leave makes what a running mesh and its users make.
func leave(t *testing.T) {
	t.Helper()
	lease(t, "istio-gateway-deployment-canary")
	client, err := dynamic.NewForConfig(server.REST())
	if err != nil {
		t.Fatal(err)
	}
	for resource, o := range map[schema.GroupVersionResource]map[string]any{
		{Version: "v1", Resource: "configmaps"}: {"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "istio-ca-root-cert", "namespace": "other"}},
		{Version: "v1", Resource: "secrets"}:    {"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "istio-ca-secret", "namespace": "istio-system"}},
		{Version: "v1", Resource: "services"}: {
			"apiVersion": "v1", "kind": "Service", "spec": map[string]any{"ports": []any{map[string]any{"port": int64(15008)}}},
			"metadata": map[string]any{"name": "waypoint", "namespace": "other", "labels": map[string]any{"gateway.istio.io/managed": "istio.io-mesh-controller"}},
		},
		{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}: {
			"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": map[string]any{"name": "mine", "namespace": "other"},
			"spec": map[string]any{"hosts": []any{"a"}, "http": []any{map[string]any{"route": []any{map[string]any{"destination": map[string]any{"host": "a"}}}}}},
		},
	} {
		u := &unstructured.Unstructured{Object: o}
		eventually(t, func() error {
			_, err := client.Resource(resource).Namespace(u.GetNamespace()).Create(t.Context(), u, metav1.CreateOptions{})
			return err
		})
	}
}

// eventually tries until it works: a kind is served a moment after its definition is stored.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	wait.Until(t, patience, "it works", func() bool { err = try(); return err == nil || apierrors.IsAlreadyExists(err) }, func() string { return fmt.Sprint(err) })
}

// TestAgain: a second installation of the same changes nothing.
func TestAgain(t *testing.T) {
	namespace(t, "istio-system")
	c := connect(t)
	t.Cleanup(func() { cleanup(t, c) })
	what := installation(t, "profile=ambient")
	if err := c.Install(t.Context(), what, noWait()); err != nil {
		t.Fatal(err)
	}
	first := inventory(t)
	if err := c.Install(t.Context(), what, noWait()); err != nil {
		t.Fatal(err)
	}
	for name, version := range inventory(t) {
		if first[name] != version && !strings.HasPrefix(name, "CustomResourceDefinition") && !strings.HasPrefix(name, "Lease") {
			t.Errorf("%s changed", name)
		}
	}
	good, err := c.Verify(t.Context(), installation(t, "profile=empty", "components.base.enabled=true", "values.base.enableCRDTemplates=false"))
	if good != 2 || err != nil {
		t.Errorf("verify: %d, %v", good, err)
	}
	_, err = c.Verify(t.Context(), what)
	if err == nil || !strings.Contains(err.Error(), "Deployment/istio-system/istiod: not looked at by its controller") {
		t.Errorf("verify: %v", err)
	}
}

func cleanup(t *testing.T, c *install.Cluster) {
	t.Helper()
	removal, err := c.FindAll(context.Background())
	if err == nil {
		err = c.Remove(context.Background(), removal, noWait())
	}
	if err != nil {
		t.Error(err)
	}
}

// TestUpgradePrunes: what a changed installation does not have any more goes; what others own stays; another revision leaves what all
// revisions share.
func TestUpgradePrunes(t *testing.T) {
	namespace(t, "istio-system")
	c := connect(t)
	t.Cleanup(func() { cleanup(t, c) })
	if err := c.Install(t.Context(), installation(t, "profile=ambient", "values.global.networkPolicy.enabled=true", "components.ingressGateways[0].enabled=true"), noWait()); err != nil {
		t.Fatal(err)
	}
	if err := c.Install(t.Context(), installation(t, "profile=minimal", "revision=canary", "values.base.enableCRDTemplates=false"), noWait()); err != nil {
		t.Fatal(err)
	}
	full := inventory(t)
	for _, want := range []string{"DaemonSet istio-system/ztunnel", "NetworkPolicy istio-system/istiod", "Deployment istio-system/istio-ingressgateway", "Deployment istio-system/istiod-canary"} {
		if _, ok := full[want]; !ok {
			t.Errorf("no %s", want)
		}
	}
	if err := c.Install(t.Context(), installation(t, "profile=minimal", "values.pilot.autoscaleEnabled=false", "values.base.enableCRDTemplates=false"), noWait()); err != nil {
		t.Fatal(err)
	}
	now := inventory(t)
	for _, name := range []string{
		"DaemonSet istio-system/ztunnel", "ServiceAccount istio-system/istio-cni", "ClusterRole /istio-cni", "NetworkPolicy istio-system/istiod",
		"Deployment istio-system/istio-ingressgateway", "HorizontalPodAutoscaler istio-system/istiod",
	} {
		if _, there := now[name]; there {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range []string{"Deployment istio-system/istiod-canary", "HorizontalPodAutoscaler istio-system/istiod-canary", "CustomResourceDefinition /gateways.networking.istio.io"} {
		if _, there := now[name]; !there {
			t.Errorf("%s is gone", name)
		}
	}
	leases := []string{"istio-gateway-deployment-canary", "istio-gateway-deployment", "istio-gateway-deployment-canary-2"}
	for _, name := range leases {
		lease(t, name)
	}
	removal, err := c.FindRevision(t.Context(), "canary")
	if err == nil {
		err = c.Remove(t.Context(), removal, noWait())
	}
	if err != nil {
		t.Fatal(err)
	}
	left := inventory(t)
	for name := range left {
		if strings.HasSuffix(name, "canary") {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range leases[1:] {
		if _, there := left["Lease istio-system/"+name]; !there {
			t.Errorf("the lease %s of another revision is gone", name)
		}
	}
}

// lease makes one as a control plane that leads does.
func lease(t *testing.T, name string) {
	t.Helper()
	client, err := dynamic.NewForConfig(server.REST())
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": name, "namespace": "istio-system"},
	}}
	if _, err := client.Resource(schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}).Namespace(u.GetNamespace()).
		Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestRefusal: what the API server does not accept is named, and so is the object.
func TestRefusal(t *testing.T) {
	namespace(t, "istio-system")
	c := connect(t)
	t.Cleanup(func() { cleanup(t, c) })
	err := c.Install(t.Context(), installation(t, "profile=minimal", "values.pilot.resources.requests.cpu=much", "values.base.enableCRDTemplates=false"), noWait())
	if err == nil || !strings.Contains(err.Error(), "Pilot: apply Deployment/istio-system/istiod: ") || !strings.Contains(err.Error(), "quantities must match") {
		t.Errorf("error %v", err)
	}
}

// TestNotReady: after the time given, the error says what is in the way.
func TestNotReady(t *testing.T) {
	namespace(t, "istio-system")
	c := connect(t)
	t.Cleanup(func() { cleanup(t, c) })
	client := kubernetes.NewForConfigOrDie(server.REST())
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "istiod-1", Namespace: "istio-system", Labels: map[string]string{"app": "istiod", "istio": "pilot"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "discovery", Image: "x"}}},
	}
	_, err := client.CoreV1().ServiceAccounts("istio-system").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if pod, err = client.CoreV1().Pods("istio-system").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		zero := int64(0)
		_ = client.CoreV1().Pods("istio-system").Delete(context.Background(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	})
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "discovery", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such image"}},
	}}
	if _, err := client.CoreV1().Pods("istio-system").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	err = c.Install(t.Context(), installation(t, "profile=minimal", "values.base.enableCRDTemplates=false"), install.Options{Timeout: 10e9})
	want := "Pilot: not ready after 10s:\n  Deployment/istio-system/istiod: not looked at by its controller, container discovery: ErrImagePull: no such image"
	if err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}

// TestNodeRestriction: the agent's account changes, of pods of its own node, what says how they are redirected, and nothing else.
func TestNodeRestriction(t *testing.T) {
	namespace(t, "istio-system")
	namespace(t, "other")
	c := connect(t)
	t.Cleanup(func() { cleanup(t, c) })
	if err := c.Install(t.Context(), installation(t, "profile=empty", "components.cni.enabled=true", "profile=ambient", "components.base.enabled=false", "components.pilot.enabled=false", "components.ztunnel.enabled=false"), noWait()); err != nil {
		t.Fatal(err)
	}
	admin := kubernetes.NewForConfigOrDie(server.REST())
	_, err := admin.CoreV1().ServiceAccounts("other").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	zero := int64(0)
	for _, node := range []string{"node-1", "node-2", ""} {
		name := "pod-" + node + "x"
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "other", Annotations: map[string]string{"theirs": "a"}},
			Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "x"}}, TerminationGracePeriodSeconds: &zero},
		}
		if _, err := admin.CoreV1().Pods("other").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = admin.CoreV1().Pods("other").Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		})
	}
	patch := func(node, pod, body string) error {
		config := rest.CopyConfig(server.REST())
		config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:istio-system:istio-cni", Extra: map[string][]string{}}
		if node != "" {
			config.Impersonate.Extra["authentication.kubernetes.io/node-name"] = []string{node}
		}
		_, err := kubernetes.NewForConfigOrDie(config).CoreV1().Pods("other").Patch(t.Context(), pod, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{})
		return err
	}
	good := `{"metadata":{"annotations":{"ambient.istio.io/redirection":"enabled"}}}`
	// The policy counts a moment after it is stored.
	eventuallyRefused(t, func() error { return patch("node-2", "pod-node-1x", good) })
	for _, tt := range []struct{ name, node, pod, body, want string }{
		{"own node", "node-1", "pod-node-1x", good, ""},
		{"again", "node-1", "pod-node-1x", `{"metadata":{"annotations":{"ambient.istio.io/redirection":null}}}`, ""},
		{"broken sidecar", "node-1", "pod-node-1x", `{"metadata":{"labels":{"cni.istio.io/uninitialized":"true"}}}`, ""},
		{"other node", "node-2", "pod-node-1x", good, `pods of its own node only; its token is for node "node-2"`},
		{"no node", "node-1", "pod-x", good, "pods of its own node only"},
		{"token without node", "", "pod-node-1x", good, `its token is for node ""`},
		{"another annotation", "node-1", "pod-node-1x", `{"metadata":{"annotations":{"mine":"x"}}}`, "no annotation of a pod but ambient.istio.io/redirection"},
		{"removed annotation", "node-1", "pod-node-1x", `{"metadata":{"annotations":{"theirs":null}}}`, "no annotation of a pod but"},
		{"label", "node-1", "pod-node-1x", `{"metadata":{"labels":{"app":"x"}}}`, "no label of a pod but"},
		{"image", "node-1", "pod-node-1x", `{"spec":{"containers":[{"name":"c","image":"evil"}]}}`, "may not change the specification"},
	} {
		err := patch(tt.node, tt.pod, tt.body)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func eventuallyRefused(t *testing.T, try func() error) {
	t.Helper()
	var err error
	wait.Until(t, patience, "refused", func() bool {
		err = try()
		return err != nil && apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
	}, func() string { return fmt.Sprint(err) })
}
