package gateways_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy/deploytest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/cluster"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/gateways"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// bed is a store with all controllers of the sandbox; pods are made ready by the test.
type bed struct {
	t     *testing.T
	store *store.Store
	loops *cluster.Controllers
}

func newBed(t *testing.T) *bed {
	t.Helper()
	names := 0
	b := &bed{t: t, store: store.New(t.TempDir(), func() {})}
	b.loops = cluster.New(b.store, []string{"node-1", "node-2"}, func() string { names++; return fmt.Sprintf("%05d", names) }, gateways.New(b.store))
	b.apply("{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
	return b
}

func (b *bed) put(text string) {
	b.t.Helper()
	objects, errs := manifest.Decode("test.yaml", []byte(text))
	if len(errs) > 0 {
		b.t.Fatal(errs)
	}
	for _, o := range objects {
		if err := b.store.Put(o); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) apply(text string) {
	b.t.Helper()
	b.put(text)
	if err := b.loops.Reconcile(); err != nil {
		b.t.Fatal(err)
	}
}

// settle makes every pod ready, and takes away those that are being ended.
func (b *bed) settle() {
	b.t.Helper()
	for i, p := range store.List[*corev1.Pod](b.store) {
		key := store.Key{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
		var err error
		if p.DeletionTimestamp != nil {
			_, err = b.store.Delete(key)
		} else {
			err = store.Modify(b.store, key, "", func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodRunning
				p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.244.1.%d", i+2)}}
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			})
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.loops.Reconcile(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) status(name string) string {
	b.t.Helper()
	o, ok := b.store.Get(store.Key{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: "default", Name: name})
	if !ok {
		b.t.Fatalf("no Gateway %s", name)
	}
	gw := &gatewayv1.Gateway{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.(*unstructured.Unstructured).Object, gw); err != nil {
		b.t.Fatal(err)
	}
	return summary(gw.Status)
}

func (b *bed) deployment(name string) *appsv1.Deployment {
	b.t.Helper()
	o, ok := b.store.Get(store.Key{Group: "apps", Kind: "Deployment", Namespace: "default", Name: name})
	if !ok {
		b.t.Fatalf("no Deployment %s", name)
	}
	return o.(*appsv1.Deployment)
}

func (b *bed) pods() (n int) {
	for _, p := range store.List[*corev1.Pod](b.store) {
		if p.DeletionTimestamp == nil {
			n++
		}
	}
	return n
}

func TestLifeOfAWaypoint(t *testing.T) {
	b := newBed(t)
	for _, class := range []string{"istio", "istio-remote", "istio-waypoint"} {
		if _, ok := b.store.Get(store.Key{Group: gatewayv1.GroupName, Kind: "GatewayClass", Name: class}); !ok {
			t.Errorf("no GatewayClass %s", class)
		}
	}
	b.apply(deploytest.Waypoint)
	if b.pods() != 1 || strings.Contains(b.status("waypoint"), "IPAddress") {
		t.Errorf("%d pods, %s", b.pods(), b.status("waypoint"))
	}
	b.settle()
	if got := b.status("waypoint"); !strings.HasPrefix(got, "IPAddress=10.96.0.") || !strings.HasSuffix(got, "Programmed=True:Programmed") {
		t.Errorf("%s", got)
	}

	// What people change of the objects stays, also when the Gateway changes.
	err := store.Modify(b.store, store.KeyOf(b.deployment("waypoint")), "", func(d *appsv1.Deployment) {
		three := int32(3)
		d.Spec.Replicas = &three
		d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] = "now"
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		b.settle()
	}
	b.apply(strings.Replace(deploytest.Waypoint, "labels: {", "labels: {team: books, ", 1))
	for range 6 {
		b.settle()
	}
	d := b.deployment("waypoint")
	if b.pods() != 3 || *d.Spec.Replicas != 3 || d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] != "now" || d.Spec.Template.Labels["team"] != "books" {
		t.Errorf("%d pods, %v", b.pods(), d.Spec.Template.ObjectMeta)
	}
	b.apply(deploytest.Waypoint)
	if _, there := b.deployment("waypoint").Spec.Template.Labels["team"]; there {
		t.Error("a label that the Gateway has no more is still there")
	}

	// A deleted object comes back; with the Gateway all go.
	if _, err := b.store.Delete(store.KeyOf(d)); err != nil {
		t.Fatal(err)
	}
	b.settle()
	b.deployment("waypoint")
	if _, err := b.store.Delete(store.Key{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: "default", Name: "waypoint"}); err != nil {
		t.Fatal(err)
	}
	b.settle()
	b.settle()
	for _, o := range b.store.All() {
		if o.GetLabels()["gateway.networking.k8s.io/gateway-name"] != "" {
			t.Errorf("%T %s stays", o, o.GetName())
		}
	}
}

func TestIngressGateway(t *testing.T) {
	b := newBed(t)
	b.apply(strings.Replace(deploytest.Ingress, "namespace: shop", "namespace: default", 1))
	b.settle()
	if got := b.status("bookinfo-gateway"); !strings.HasPrefix(got, "IPAddress=10.96.0.") || strings.Contains(got, "Hostname") {
		t.Errorf("of a load balancer: %s", got)
	}
	b.apply(strings.Replace(deploytest.Ingress, "namespace: shop", "namespace: default\n  annotations: {networking.istio.io/service-type: ClusterIP}", 1))
	b.settle()
	if got := b.status("bookinfo-gateway"); !strings.HasPrefix(got, "Hostname=bookinfo-gateway-istio.default.svc.cluster.local ") {
		t.Errorf("of a ClusterIP: %s", got)
	}
}

// The Service of a Gateway has the ports of the ListenerSets that it takes, as long as it does.
func TestListenerSetsAddPorts(t *testing.T) {
	b := newBed(t)
	ports := func(want string) {
		t.Helper()
		o, ok := b.store.Get(store.Key{Kind: "Service", Namespace: "default", Name: "bookinfo-gateway-istio"})
		if !ok {
			t.Fatal("no Service")
		}
		var got []string
		for _, p := range o.(*corev1.Service).Spec.Ports {
			got = append(got, fmt.Sprint(p.Port))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("ports %v, want %s", got, want)
		}
	}
	ingress := strings.Replace(deploytest.Ingress, "namespace: shop", "namespace: default", 1)
	b.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {name: shop, namespace: team}, spec: {parentRef: {name: bookinfo-gateway, namespace: default}, listeners: [{name: a, port: 8080, protocol: HTTP}]}}`)
	b.apply(ingress)
	ports("15021 80 443")
	b.apply(ingress + "  allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: \"yes\"}}}}\n")
	ports("15021 80 443")
	b.apply("{apiVersion: v1, kind: Namespace, metadata: {name: team, labels: {team: \"yes\"}}}")
	ports("15021 80 443 8080")
	if _, err := b.store.Delete(store.Key{Group: gatewayv1.GroupName, Kind: "ListenerSet", Namespace: "team", Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	b.settle()
	ports("15021 80 443")
}

func TestGatewaysThatAreLeftAlone(t *testing.T) {
	b := newBed(t)
	for name, change := range map[string][2]string{
		"remote": {"istio-waypoint", "istio-remote"}, "foreign": {"istio-waypoint", "example"},
		"manual": {"  listeners:", "  addresses: [{type: Hostname, value: mine.default.svc.cluster.local}]\n  listeners:"},
	} {
		b.apply(strings.Replace(strings.Replace(deploytest.Waypoint, "name: waypoint", "name: "+name, 1), change[0], change[1], 1))
		if b.pods() != 0 || b.status(name) != "" {
			t.Errorf("%s: %d pods, %s", name, b.pods(), b.status(name))
		}
	}
}

func TestGatewaysThatCannotBe(t *testing.T) {
	b := newBed(t)
	b.apply("{apiVersion: v1, kind: Service, metadata: {name: taken}, spec: {ports: [{port: 80}]}}")
	for name, c := range map[string]struct{ text, says string }{
		"taken":   {strings.Replace(deploytest.Waypoint, "name: waypoint", "name: taken", 1), "Service taken exists, and is not this Gateway's"},
		"nothing": {strings.Replace(strings.Replace(deploytest.Waypoint, "name: waypoint", "name: nothing", 1), "  listeners:", "  infrastructure: {parametersRef: {group: \"\", kind: ConfigMap, name: none}}\n  listeners:", 1), "ConfigMap none does not exist"},
	} {
		b.put(c.text)
		if err := b.loops.Reconcile(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if got := b.status(name); !strings.Contains(got, "Accepted=False:InvalidParameters") {
			t.Errorf("%s: %s", name, got)
		}
	}
	b.put("{apiVersion: v1, kind: ConfigMap, metadata: {name: none}, data: {deployment: 'spec: {replicas: 2}', horizontalPodAutoscaler: 'spec: {maxReplicas: 3}'}}")
	_ = b.loops.Reconcile() // the other one is still wrong
	if _, there := b.store.Get(store.Key{Group: "autoscaling", Kind: "HorizontalPodAutoscaler", Namespace: "default", Name: "nothing"}); !there {
		t.Error("its HorizontalPodAutoscaler is not stored")
	}
	if got := b.status("nothing"); !strings.Contains(got, "Accepted=True") || *b.deployment("nothing").Spec.Replicas != 2 {
		t.Errorf("once its parameters are there: %s", got)
	}
}
