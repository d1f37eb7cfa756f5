//go:build envtest

package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/cni/internal/install"
	"github.com/isthmus-mesh/isthmus/cni/internal/kubeapi"
	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// machine is a real API server with a node of which only the network is there.
type machine struct {
	t      *testing.T
	server *apiserver.Server
	client kubernetes.Interface
	node   *os.File
	pod    *os.File
	dir    string
	told   chan string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	c := &machine{t: t, server: kubetest.New(t), node: nettest.New(t), pod: nettest.New(t), dir: t.TempDir(), told: make(chan string, 1000)}
	var err error
	if c.client, err = kubernetes.NewForConfig(c.server.REST()); err != nil {
		t.Fatal(err)
	}
	nettest.Link(t, c.pod, c.node, []string{"10.5.0.2/24"}, []string{"10.5.0.1/24"})
	return c
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// objects makes what the agent may do, what it belongs to, and two pods that run.
func (c *machine) objects() {
	t, ctx := c.t, c.t.Context()
	for _, name := range []string{"istio-system", "shop"} {
		must[*corev1.Namespace](t)(c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	}
	for _, namespace := range []string{"istio-system", "shop"} {
		for _, name := range []string{"istio-cni", "default"} {
			must[*corev1.ServiceAccount](t)(c.client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
		}
	}
	rule := func(group, resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
	}
	must[*rbacv1.ClusterRole](t)(c.client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-cni"},
		Rules: []rbacv1.PolicyRule{
			rule("", "pods", "get", "list", "watch", "patch"), rule("", "namespaces", "get", "list", "watch"), rule("apps", "daemonsets", "get"),
			rule("security.istio.io", "peerauthentications", "get", "list", "watch"), rule("apiextensions.k8s.io", "customresourcedefinitions", "get", "list", "watch"),
		},
	}, metav1.CreateOptions{}))
	must[*rbacv1.ClusterRoleBinding](t)(c.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-cni"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "istio-cni"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "istio-system", Name: "istio-cni"}},
	}, metav1.CreateOptions{}))
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"k8s-app": "istio-cni-node"}}, Spec: c.spec("n1", "istio-cni")}
	must[*appsv1.DaemonSet](t)(c.client.AppsV1().DaemonSets("istio-system").Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-cni-node"},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}, metav1.CreateOptions{}))
	yes := true
	c.run(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "istio-cni-node-1", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "istio-cni-node", UID: "d1", Controller: &yes},
	}}, Spec: c.spec("n1", "istio-cni")}, "10.5.0.9")
	c.run(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "elsewhere"}, Spec: c.spec("n2", "default")}, "10.6.0.2")
}

func (c *machine) spec(node, account string) corev1.PodSpec {
	return corev1.PodSpec{NodeName: node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
}

// run creates a pod and says what a kubelet would say of it.
func (c *machine) run(pod *corev1.Pod, ip string) *corev1.Pod {
	created := must[*corev1.Pod](c.t)(c.client.CoreV1().Pods(pod.Namespace).Create(c.t.Context(), pod, metav1.CreateOptions{}))
	created.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
	return must[*corev1.Pod](c.t)(c.client.CoreV1().Pods(pod.Namespace).UpdateStatus(c.t.Context(), created, metav1.UpdateOptions{}))
}

// procfs makes the node's: its first process, and one of the pod.
func (c *machine) procfs(uid types.UID) string {
	proc := filepath.Join(c.dir, "proc")
	for pid, p := range map[string]struct {
		cgroup string
		ns     *os.File
	}{"1": {"0::/init.scope", c.node}, "77": {"0::/kubepods/burstable/pod" + string(uid) + "/x", c.pod}} {
		if err := os.MkdirAll(filepath.Join(proc, pid, "ns"), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "cgroup"), []byte(p.cgroup), 0o600); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", p.ns.Fd()), filepath.Join(proc, pid, "ns/net")); err != nil {
			c.t.Fatal(err)
		}
	}
	return proc
}

func (c *machine) config(proc string) Config {
	t := c.t
	agent := must[*corev1.Pod](t)(c.client.CoreV1().Pods("istio-system").Get(t.Context(), "istio-cni-node-1", metav1.GetOptions{}))
	account, err := c.server.Account(t.Context(), types.NamespacedName{Namespace: "istio-system", Name: "istio-cni"}, &agent.ObjectMeta)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(c.dir, "kubeconfig")
	if err := apiserver.WriteKubeconfig(kubeconfig, account); err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	cfg.Node, cfg.PodNamespace, cfg.PodName, cfg.Kubeconfig, cfg.HostProc = "n1", "istio-system", "istio-cni-node-1", kubeconfig, proc
	cfg.ZDSSocket, cfg.PluginSocket, cfg.StateFile = filepath.Join(c.dir, "z.sock"), filepath.Join(c.dir, "p.sock"), filepath.Join(c.dir, "pods.json")
	cfg.Install = InstallConfig{Source: "/proc/self/exe", BinDir: filepath.Join(c.dir, "bin"), NetDir: filepath.Join(c.dir, "net.d"), Owned: true}
	if err := os.MkdirAll(cfg.Install.NetDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Install.NetDir, "10-net.conflist"), []byte(`{"cniVersion":"0.3.1","name":"n","plugins":[{"type":"ptp"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.HealthAddr, cfg.MonitoringAddr, cfg.Log = "127.0.0.1:0", "127.0.0.1:0", slog.New(slog.NewTextHandler(t.Output(), nil))
	return cfg
}

func (c *machine) annotation(name string) string {
	pod := must[*corev1.Pod](c.t)(c.client.CoreV1().Pods("shop").Get(c.t.Context(), name, metav1.GetOptions{}))
	return pod.Annotations["ambient.istio.io/redirection"]
}

func (c *machine) eventually(what string, ok func() bool) {
	c.t.Helper()
	wait.Until(c.t, patience, what, ok, nil)
}

func (c *machine) label(mode string) {
	patch := fmt.Sprintf(`{"metadata":{"labels":{"istio.io/dataplane-mode":%q}}}`, mode)
	must[*corev1.Namespace](c.t)(c.client.CoreV1().Namespaces().Patch(c.t.Context(), "shop", types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
}

// tunnel answers on the pod's tunnel port with its certificate, as its proxy does.
func (c *machine) tunnel() {
	ca := must[*testkit.CA](c.t)(testkit.NewCA())
	own := must[*certs.Workload](c.t)(ca.Issue(context.Background(), spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "default"}))
	config := certs.HBONEServerConfig(func() (*certs.Workload, error) { return own, nil })
	listener := nettest.Listen(c.t, c.pod, ":15008")
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) {
				defer conn.Close()
				_ = tls.Server(conn, config).Handshake() // ends with the probe's lack of a certificate
			}(conn)
		}
	}()
}

func TestKubernetes(t *testing.T) {
	c := newMachine(t)
	c.objects()
	t.Run("writes are bound to the pod", func(t *testing.T) { writesAreBound(t, c) })
	t.Run("a running pod", func(t *testing.T) { aRunningPod(t, c) })
}

func aRunningPod(t *testing.T, c *machine) {
	t.Helper()
	pod := c.run(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: c.spec("n1", "default")}, "10.5.0.2")
	cfg := c.config(c.procfs(pod.UID))
	go proxy(t.Context(), cfg.ZDSSocket, c.told)
	go func() { // what the proxy is told is not looked at here
		for range c.told {
		}
	}()
	var seen []string
	var mu sync.Mutex
	stream, err := c.client.CoreV1().Pods("shop").Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=web"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Stop()
	go func() {
		for event := range stream.ResultChan() {
			if p, ok := event.Object.(*corev1.Pod); ok {
				mu.Lock()
				if value := p.Annotations["ambient.istio.io/redirection"]; len(seen) == 0 || seen[len(seen)-1] != value {
					seen = append(seen, value)
				}
				mu.Unlock()
			}
		}
	}()

	stop := start(t, cfg)
	c.eventually("the plugin is installed", func() bool { return install.Validate((&daemon{cfg: cfg}).installation()) == nil })
	c.label("ambient")
	c.eventually("pending: nobody answers in the pod", func() bool { return c.annotation("web") == "pending" })
	c.tunnel()
	c.eventually("enabled", func() bool { return c.annotation("web") == "enabled" })
	wait.Until(t, patience, `the annotation is seen to go from "" by "pending" to "enabled"`, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(seen, []string{"", "pending", "enabled"})
	}, func() string {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprintf("seen: %q", seen)
	})
	if got := c.annotation("elsewhere"); got != "" {
		t.Errorf("a pod of another node was annotated %q", got)
	}

	stop() // an upgrade: the DaemonSet is there
	if err := install.Validate((&daemon{cfg: cfg}).installation()); err != nil || c.annotation("web") != "enabled" {
		t.Errorf("after a restart: %v, annotation %q", err, c.annotation("web"))
	}
	stop = start(t, cfg)
	c.label("none")
	c.eventually("un-enrolled", func() bool { return c.annotation("web") == "" })
	c.label("ambient")
	c.eventually("enabled again", func() bool { return c.annotation("web") == "enabled" })
	if err := c.client.AppsV1().DaemonSets("istio-system").Delete(t.Context(), "istio-cni-node", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	stop()
	entries, err := os.ReadDir(cfg.Install.NetDir)
	if err != nil || len(entries) != 1 || c.annotation("web") != "" {
		t.Errorf("after the uninstallation: %v, %v, annotation %q", entries, err, c.annotation("web"))
	}
	if _, err := os.Stat(filepath.Join(cfg.Install.BinDir, install.PluginType)); !os.IsNotExist(err) {
		t.Errorf("the plugin is left: %v", err)
	}
}

func writesAreBound(t *testing.T, c *machine) {
	t.Helper()
	pod := c.run(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bound"}, Spec: c.spec("n2", "default")}, "10.5.0.3")
	api := must[*kubeapi.Client](t)(kubeapi.New(c.server.REST()))
	defer api.Close()
	value := "enabled"
	if err := api.Annotate(t.Context(), pod, "ambient.istio.io/redirection", &value); err != nil || c.annotation("bound") != value {
		t.Errorf("%v, annotation %q", err, c.annotation("bound"))
	}
	before := pod.DeepCopy()
	before.UID = "5e0dd8a5-3b1f-4c55-9d13-0c1f6a1f2b3c"
	if err := api.Annotate(t.Context(), before, "ambient.istio.io/redirection", nil); kubeapi.CodeOf(err) != 409 && kubeapi.CodeOf(err) != 422 {
		t.Errorf("another pod of the same name: %v", err)
	}
	if err := api.Delete(t.Context(), before); kubeapi.CodeOf(err) != 409 {
		t.Errorf("another pod of the same name: %v", err)
	}
	if err := api.Label(t.Context(), pod, "cni.istio.io/uninitialized", "true"); err != nil {
		t.Error(err)
	}
	if err := api.Delete(t.Context(), pod); err != nil {
		t.Error(err)
	}
	if gone, err := api.DaemonSetGone(t.Context(), "istio-system", "istio-cni-node"); err != nil || gone {
		t.Errorf("gone %t, %v", gone, err)
	}
	if gone, err := api.DaemonSetGone(t.Context(), "istio-system", "nobody"); err != nil || !gone {
		t.Errorf("gone %t, %v", gone, err)
	}
	account := must[*corev1.ServiceAccount](t)(c.client.CoreV1().ServiceAccounts("shop").Get(t.Context(), "default", metav1.GetOptions{}))
	config, err := c.server.Account(t.Context(), types.NamespacedName{Namespace: account.Namespace, Name: account.Name}, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := must[*kubeapi.Client](t)(kubeapi.New(config))
	defer other.Close()
	if _, err := other.DaemonSetGone(t.Context(), "istio-system", "istio-cni-node"); kubeapi.CodeOf(err) != 403 || !strings.Contains(err.Error(), "daemonsets") {
		t.Errorf("without the right: %v", err)
	}
}
