//go:build envtest

package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// bed is a controller that runs against a real API server.
type bed struct {
	t     *testing.T
	c     *Controller
	added *sync.Map // listeners of ListenerSets, by the Gateway's name
}

func (b *bed) listeners(gw types.NamespacedName) []gatewayv1.Listener {
	found, _ := b.added.Load(gw)
	list, _ := found.([]gatewayv1.Listener)
	return list
}

// newBed starts a controller; it ends with the test.
func newBed(t *testing.T, s *apiserver.Server, revision string) *bed {
	t.Helper()
	b := &bed{t: t, added: &sync.Map{}}
	c, err := New(Config{
		REST: s.REST(), Namespace: "istio-system", Revision: revision, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Values:    func() deploy.Values { return deploy.Values{TrustDomain: "td.example.org"} },
		Listeners: b.listeners,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	b.c = c
	return b
}

func (b *bed) until(what string, ok func() error) {
	b.t.Helper()
	err := errors.New("not looked at")
	wait.Until(b.t, time.Minute, what, func() bool {
		err = ok()
		return err == nil
	}, func() string { return err.Error() })
}

// never looks for a while whether something happens that must not.
func (b *bed) never(what string, happens func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Second); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		if happens() {
			b.t.Fatal(what)
		}
	}
}

func (b *bed) namespace(name string, labels map[string]string) {
	b.t.Helper()
	_, err := b.c.client.CoreV1().Namespaces().Create(b.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		b.t.Fatal(err)
	}
}

// apply applies a manifest as a person does.
func (b *bed) apply(text string) {
	b.t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		b.t.Fatal(err)
	}
	resource := u.GroupVersionKind().GroupVersion().WithResource(strings.ToLower(u.GetKind()) + "s")
	data, err := json.Marshal(u.Object)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.c.dynamic.Resource(resource).Namespace(u.GetNamespace()).Patch(b.t.Context(), u.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "person"}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) gateway(namespace, name string) *gatewayv1.Gateway {
	b.t.Helper()
	u, err := b.c.dynamic.Resource(gateways()).Namespace(namespace).Get(b.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	gw := &gatewayv1.Gateway{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, gw); err != nil {
		b.t.Fatal(err)
	}
	return gw
}

func (b *bed) problem(namespace, name string) string {
	c := meta.FindStatusCondition(b.gateway(namespace, name).Status.Conditions, ConditionDeployed)
	if c == nil {
		return ""
	}
	return string(c.Status) + ":" + c.Reason + ":" + c.Message
}

func (b *bed) image(namespace, name string) string {
	d, err := b.c.client.AppsV1().Deployments(namespace).Get(b.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	return d.Spec.Template.Spec.Containers[0].Image
}

func (b *bed) hasImage(namespace, name, want string) {
	b.t.Helper()
	b.until("image "+want+" of "+name, func() error {
		if got := b.image(namespace, name); got != want {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

func (b *bed) ready(namespace, name string, n int32) {
	b.t.Helper()
	b.until("the Deployment", func() error {
		d, err := b.c.client.AppsV1().Deployments(namespace).Get(b.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		d.Status.Replicas, d.Status.ReadyReplicas = n, n
		_, err = b.c.client.AppsV1().Deployments(namespace).UpdateStatus(b.t.Context(), d, metav1.UpdateOptions{})
		return err
	})
}

func manifest(namespace, name, class, more string) string {
	return `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: ` + name + `, namespace: ` + namespace + `, labels: {istio.io/waypoint-for: service` + more + `},
 spec: {gatewayClassName: ` + class + `, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}`
}

const (
	defaultImage = "docker.io/isthmus/proxyv2:dev"
	otherImage   = "registry.example.org/proxyv2:1"
)

// Nothing happens before the Gateway API is installed; then the classes and the Gateways' objects appear, are repaired, and follow
// whatever customises them.
func TestLifeOfAWaypoint(t *testing.T) {
	s := kubetest.New(t, kubetest.WithoutCRDs())
	b := newBed(t, s, "default")
	b.namespace("istio-system", nil)
	b.namespace("shop", nil)
	if err := apiserver.ApplyCRDs(t.Context(), s.REST(), kubetest.CRDs(t)...); err != nil {
		t.Fatal(err)
	}
	for _, class := range []string{"istio", "istio-remote", "istio-waypoint"} {
		b.until("GatewayClass "+class, func() error {
			_, err := b.c.dynamic.Resource(gatewayClasses()).Get(t.Context(), class, metav1.GetOptions{})
			return err
		})
	}
	if err := b.c.dynamic.Resource(gatewayClasses()).Delete(t.Context(), "istio", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("a deleted class comes back", func() error {
		_, err := b.c.dynamic.Resource(gatewayClasses()).Get(t.Context(), "istio", metav1.GetOptions{})
		return err
	})

	b.apply(manifest("shop", "waypoint", "istio-waypoint", ", team: books}"))
	b.hasImage("shop", "waypoint", defaultImage)
	core := b.c.client.CoreV1()
	service, err := core.Services("shop").Get(t.Context(), "waypoint", metav1.GetOptions{})
	if err != nil || !owned(service, b.gateway("shop", "waypoint")) || service.Spec.ClusterIP == "" {
		t.Fatalf("%v %+v", err, service)
	}
	if _, err := core.ServiceAccounts("shop").Get(t.Context(), "waypoint", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	addresses := func(want int) {
		t.Helper()
		b.until(fmt.Sprintf("%d addresses", want), func() error {
			if got := b.gateway("shop", "waypoint").Status.Addresses; len(got) != want {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	b.never("an address before a pod is ready", func() bool { return len(b.gateway("shop", "waypoint").Status.Addresses) > 0 })
	b.ready("shop", "waypoint", 1)
	addresses(2)
	if got := b.gateway("shop", "waypoint").Status.Addresses; got[0].Value != service.Spec.ClusterIP || got[1].Value != "waypoint.shop.svc.cluster.local" {
		t.Errorf("%v", got)
	}
	b.ready("shop", "waypoint", 0)
	b.never("its addresses go with its pods", func() bool { return len(b.gateway("shop", "waypoint").Status.Addresses) != 2 })

	// What others change of what is rendered is repaired; what they add stays.
	_, err = b.c.client.AppsV1().Deployments("shop").Patch(t.Context(), "waypoint", types.JSONPatchType, []byte(
		`[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"evil"},{"op":"replace","path":"/spec/replicas","value":3}]`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.hasImage("shop", "waypoint", defaultImage)
	if d, err := b.c.client.AppsV1().Deployments("shop").Get(t.Context(), "waypoint", metav1.GetOptions{}); err != nil || *d.Spec.Replicas != 3 {
		t.Errorf("%v, %d replicas", err, *d.Spec.Replicas)
	}
	if err := core.Services("shop").Delete(t.Context(), "waypoint", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("a deleted Service comes back", func() error {
		_, err := core.Services("shop").Get(t.Context(), "waypoint", metav1.GetOptions{})
		return err
	})
	b.apply(manifest("shop", "waypoint", "istio-waypoint", "}"))
	b.until("a label that the Gateway has no more goes", func() error {
		d, err := b.c.client.AppsV1().Deployments("shop").Get(t.Context(), "waypoint", metav1.GetOptions{})
		if err == nil && d.Spec.Template.Labels["team"] != "" {
			err = fmt.Errorf("%v", d.Spec.Template.Labels)
		}
		return err
	})

	// The values of the installation.
	b.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-sidecar-injector, namespace: istio-system}, data: {values: '{"global": {"hub": "registry.example.org", "tag": 1}}'}}`)
	b.hasImage("shop", "waypoint", otherImage)
	// Another class: other names.
	b.apply(manifest("shop", "waypoint", "istio", "}"))
	b.hasImage("shop", "waypoint-istio", otherImage)
	b.until("what it was before goes", func() error {
		if got := b.image("shop", "waypoint"); !strings.Contains(got, "not found") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

func TestParameters(t *testing.T) {
	s := kubetest.New(t)
	b := newBed(t, s, "default")
	b.namespace("istio-system", nil)
	b.namespace("shop", nil)
	with := strings.Replace(manifest("shop", "wp", "istio-waypoint", "}"), "listeners:", `infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: custom}}, listeners:`, 1)
	b.apply(with)
	problem := func(want string) {
		t.Helper()
		b.until("problem "+want, func() error {
			if got := b.problem("shop", "wp"); want == "" && got != "" || !strings.Contains(got, want) {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	}
	problem("False:InvalidParameters:spec.infrastructure.parametersRef: ConfigMap custom does not exist")
	b.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: custom, namespace: shop}, data: {deployment: 'spec: {replica: 1}'}}`)
	problem(`unknown field "spec.replica"`)
	b.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: custom, namespace: shop}, data: {deployment: 'spec: {replicas: 2}', horizontalPodAutoscaler: 'spec: {maxReplicas: 5}', podDisruptionBudget: 'spec: {minAvailable: 1}'}}`)
	problem("")
	hpa := b.c.client.AutoscalingV2().HorizontalPodAutoscalers("shop")
	b.until("the autoscaler", func() error {
		h, err := hpa.Get(t.Context(), "wp", metav1.GetOptions{})
		if err == nil && (h.Spec.MaxReplicas != 5 || h.Spec.ScaleTargetRef.Name != "wp") {
			err = fmt.Errorf("%+v", h.Spec)
		}
		return err
	})
	if _, err := b.c.client.PolicyV1().PodDisruptionBudgets("shop").Get(t.Context(), "wp", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	// An object that the API server refuses is the parameters' fault.
	b.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: custom, namespace: shop}, data: {deployment: 'spec: {replicas: -2}'}}`)
	problem("spec.replicas")
	b.until("the autoscaler goes", func() error {
		if _, err := hpa.Get(t.Context(), "wp", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %w", err)
		}
		return nil
	})
	// Parameters of the class, under those of the Gateway.
	b.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: class, namespace: istio-system, labels: {gateway.istio.io/defaults-for-class: istio-waypoint}}, data: {deployment: 'spec: {template: {spec: {nodeSelector: {of: class}}}}'}}`)
	b.apply(manifest("shop", "wp", "istio-waypoint", "}"))
	problem("")
	b.until("the class's parameters", func() error {
		d, err := b.c.client.AppsV1().Deployments("shop").Get(t.Context(), "wp", metav1.GetOptions{})
		if err == nil && d.Spec.Template.Spec.NodeSelector["of"] != "class" {
			err = fmt.Errorf("%v", d.Spec.Template.Spec.NodeSelector)
		}
		return err
	})
}

// Gateways of another revision, of other controllers, and those that somebody else deploys are left alone, and so are objects of
// the same names.
// TestListenersOfListenerSets: the Service follows them, without the Gateway having changed.
func TestListenersOfListenerSets(t *testing.T) {
	b := newBed(t, kubetest.New(t), "default")
	b.namespace("istio-system", nil)
	b.namespace("sets", nil)
	key := types.NamespacedName{Namespace: "sets", Name: "edge"}
	ports := func(want string) {
		t.Helper()
		b.until("ports "+want, func() error {
			s, err := b.c.client.CoreV1().Services(key.Namespace).Get(t.Context(), "edge-istio", metav1.GetOptions{})
			if err != nil {
				return err
			}
			var got []string
			for _, p := range s.Spec.Ports {
				got = append(got, fmt.Sprint(p.Port))
			}
			if strings.Join(got, " ") != want {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	b.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: edge, namespace: sets}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}}`)
	ports("15021 80")
	b.added.Store(key, []gatewayv1.Listener{{Name: "more", Port: 8080, Protocol: gatewayv1.HTTPProtocolType}})
	b.c.ListenersChanged(key)
	ports("15021 80 8080")
	b.added.Delete(key)
	b.c.ListenersChanged(key)
	ports("15021 80")
}

func TestOtherRevisionIgnored(t *testing.T) {
	s := kubetest.New(t)
	b := newBed(t, s, "canary")
	b.namespace("istio-system", nil)
	b.namespace("shop", nil)
	b.namespace("birds", map[string]string{"istio.io/rev": "canary"})
	b.apply(manifest("shop", "none", "istio-waypoint", "}"))
	b.apply(manifest("shop", "other", "istio-waypoint", ", istio.io/rev: other}"))
	b.apply(manifest("shop", "foreign", "example", ", istio.io/rev: canary}"))
	b.apply(strings.Replace(manifest("shop", "manual", "istio", ", istio.io/rev: canary}"), "listeners:", "addresses: [{type: Hostname, value: edge.shop.svc.cluster.local}], listeners:", 1))
	b.apply(strings.Replace(manifest("shop", "remote", "istio-remote", ", istio.io/rev: canary}"), "listeners:", "addresses: [{value: 192.0.2.7}], listeners:", 1))
	b.apply(`{apiVersion: v1, kind: Service, metadata: {name: edge, namespace: shop}, spec: {ports: [{port: 80}]}}`)
	b.apply(`{apiVersion: v1, kind: Service, metadata: {name: taken, namespace: shop}, spec: {ports: [{port: 80}]}}`)
	b.apply(`{apiVersion: v1, kind: ServiceAccount, metadata: {name: mine, namespace: birds}}`)
	b.apply(manifest("shop", "taken", "istio-waypoint", ", istio.io/rev: canary}"))
	b.apply(manifest("shop", "own", "istio-waypoint", ", istio.io/rev: canary}"))
	b.apply(strings.Replace(manifest("birds", "by-namespace", "istio-waypoint", "}"), "metadata: {", "metadata: {annotations: {gateway.istio.io/service-account: mine, gateway.istio.io/name-override: wren}, ", 1))
	b.hasImage("shop", "own", defaultImage)
	b.hasImage("birds", "wren", defaultImage)
	if a, err := b.c.client.CoreV1().ServiceAccounts("birds").Get(t.Context(), "mine", metav1.GetOptions{}); err != nil || len(a.OwnerReferences) > 0 {
		t.Errorf("%v: an account that exists has become the Gateway's: %v", err, a.OwnerReferences)
	}
	b.until("the conflict is told", func() error {
		if got := b.problem("shop", "taken"); !strings.Contains(got, "Service taken exists") {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	for name, want := range map[string]string{"manual": "edge.shop.svc.cluster.local", "remote": "192.0.2.7"} {
		b.until("addresses of "+name, func() error {
			if got := b.gateway("shop", name).Status.Addresses; len(got) != 1 || got[0].Value != want {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	for _, name := range []string{"none", "other", "foreign", "manual-istio", "remote-istio-remote", "remote"} {
		if got := b.image("shop", name); !strings.Contains(got, "not found") {
			t.Errorf("%s was deployed: %s", name, got)
		}
	}
}

// TestTags: a Gateway that names a tag is the business of the revision to which the tag leads, at once when it leads to another one.
func TestTags(t *testing.T) {
	s := kubetest.New(t)
	b := newBed(t, s, "canary")
	b.namespace("istio-system", nil)
	b.namespace("tags", nil)
	for name, labels := range map[string]string{"prod": ", istio.io/rev: prod}", "next": ", istio.io/rev: next}", "plain": "}"} {
		b.apply(manifest("tags", name, "istio-waypoint", labels))
	}
	b.apply(manifest("tags", "own", "istio-waypoint", ", istio.io/rev: canary}"))
	b.hasImage("tags", "own", defaultImage)
	absent := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if got := b.image("tags", name); !strings.Contains(got, "not found") {
				t.Errorf("%s was deployed: %s", name, got)
			}
		}
	}
	absent("prod", "next", "plain")
	service := `{apiVersion: v1, kind: Service, metadata: {name: istiod-revision-tag-prod, namespace: istio-system, labels: {istio.io/tag: prod, istio.io/rev: %s}}, spec: {ports: [{port: 15012}]}}`
	b.apply(fmt.Sprintf(service, "canary"))
	b.hasImage("tags", "prod", defaultImage)
	absent("next", "plain")
	b.apply(`{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: istio-revision-tag-next, labels: {istio.io/tag: next, istio.io/rev: canary}}}`)
	b.hasImage("tags", "next", defaultImage)
	absent("plain")
	b.apply(`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: istiod-default-validator, labels: {istio.io/rev: canary}}}`)
	b.hasImage("tags", "plain", defaultImage)

	b.apply(fmt.Sprintf(service, "1-30"))
	// When a change behind it has been seen, it has been too.
	b.apply(strings.ReplaceAll(fmt.Sprintf(service, "canary"), "prod", "behind"))
	b.apply(manifest("tags", "behind", "istio-waypoint", ", istio.io/rev: behind}"))
	b.hasImage("tags", "behind", defaultImage)
	b.apply(manifest("tags", "late", "istio-waypoint", ", istio.io/rev: prod}"))
	b.never("a Gateway of a tag that has moved was deployed", func() bool { return !strings.Contains(b.image("tags", "late"), "not found") })
}
