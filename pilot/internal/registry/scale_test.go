package registry

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// scale fills a sink with services of ten pods each, as a source that has stripped them does.
func scale(sink kube.Sink, services int) {
	const perService, perNamespace, nodes = 10, 50, 100
	apply := func(kind string, objects []kube.Object) {
		for _, k := range kube.Kinds() {
			if k.GVK.Kind == kind && (k.GVK.Group == "" || k.GVK.Group == "discovery.k8s.io") {
				sink.Apply(k.GVK, objects, nil)
			}
		}
	}
	var namespaces, pods, svcs, slices, hosts []kube.Object
	for i := range nodes {
		hosts = append(hosts, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i), Labels: map[string]string{"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}}})
	}
	port := []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	ready := []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for i := range services {
		ns := fmt.Sprintf("ns-%d", i/perNamespace)
		if i%perNamespace == 0 {
			namespaces = append(namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"istio.io/dataplane-mode": "ambient"}}})
		}
		name := fmt.Sprintf("svc-%d", i)
		labels := map[string]string{"app": name, "version": "v1", "pod-template-hash": "abc"}
		owner := []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name + "-abc"}}
		svcs = append(svcs, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns},
			Spec:       corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}}},
		})
		slices = append(slices, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name + "-x", Namespace: ns, Labels: map[string]string{"kubernetes.io/service-name": name}}})
		for j := range perService {
			n := i*perService + j
			ip := fmt.Sprintf("10.%d.%d.%d", 100+n/62500, n/250%250, n%250+1)
			pods = append(pods, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-abc-%d", name, j), Namespace: ns, UID: types.UID(fmt.Sprint(n)), Labels: labels, OwnerReferences: owner, Annotations: map[string]string{"ambient.istio.io/redirection": "enabled"}},
				Spec:       corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", n%nodes), ServiceAccountName: name, Containers: port},
				Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, Conditions: ready},
			})
		}
	}
	apply("Namespace", namespaces)
	apply("Node", hosts)
	apply("Service", svcs)
	apply("EndpointSlice", slices)
	apply("Pod", pods)
	sink.Synced()
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// BenchmarkFill is the load of a mesh of 25 000 pods. MiB is what the registry keeps, the objects included.
func BenchmarkFill(b *testing.B) {
	for b.Loop() {
		before := heap()
		start := time.Now()
		r := New(Mesh{Mesh: ambient.Mesh{ClusterID: "Kubernetes", Domain: "cluster.local", TrustDomain: "cluster.local", RootNamespace: "istio-system"}})
		scale(r.Sink(nil), 2500)
		b.ReportMetric(time.Since(start).Seconds(), "s/fill")
		kept := heap() - before
		b.ReportMetric(kept, "MiB")
		b.ReportMetric(kept*(1<<20)/25000, "B/pod")
		if n := r.addresses.Len(); n != 27500 {
			b.Fatalf("%d addresses", n)
		}
		runtime.KeepAlive(r)
	}
}
