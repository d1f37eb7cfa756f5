package ambient

import (
	"testing"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// around is a namespace whose workloads have a waypoint, with these services.
func around(services ...*Service) Surroundings {
	w := &Waypoint{Namespace: "a", Name: "w", For: trafficAll, Address: &workload.GatewayAddress{HboneMtlsPort: hbonePort}}
	return Surroundings{
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{labelUseWaypoint: "w"}}},
		Services:  func(map[string]string) []*Service { return services },
		Policies:  func(map[string]string) []*Policy { return nil },
		Waypoints: Waypoints{Get: func(key string) *Waypoint {
			if key == w.Key() {
				return w
			}
			return nil
		}},
	}
}

func pod(labels map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "a", UID: "new", Labels: labels}, Status: corev1.PodStatus{PodIP: "10.0.0.1"}}
}

func TestPodsOfGatewaysHaveNoWaypoint(t *testing.T) {
	for gateway, has := range map[string]bool{"": true, "w": false, "ingress": false} {
		p := pod(nil)
		if gateway != "" {
			p.Labels = map[string]string{labelGatewayName: gateway}
		}
		out := PodWorkload(around(), NewPod(p))
		if (out.Proto.Waypoint != nil) != has || (out.Binding.Waypoint != "") != has {
			t.Errorf("gateway %q: waypoint %v, binding %v", gateway, out.Proto.Waypoint, out.Binding)
		}
	}
}

func TestNamedPorts(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	port := func(name string, number int32) []corev1.ContainerPort {
		return []corev1.ContainerPort{{Name: name, ContainerPort: number}}
	}
	p := pod(map[string]string{"app": "web"})
	p.Spec.Containers = []corev1.Container{{Ports: port("http", 8080)}}
	p.Spec.InitContainers = []corev1.Container{{Ports: port("early", 1)}, {Ports: port("beside", 9000), RestartPolicy: &always}}
	for name, want := range map[string]uint32{"http": 8080, "beside": 9000, "early": 0, "other": 0} {
		if got := containerPort(NewPod(p), name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	// The ports of a ServiceEntry are found by their own names; what the pod does not name is at the target or the port itself.
	se := &networkingv1.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "a"}, Spec: networkingapi.ServiceEntry{
		Hosts: []string{"example.com"}, Resolution: networkingapi.ServiceEntry_STATIC, WorkloadSelector: &networkingapi.WorkloadSelector{Labels: p.Labels},
		Ports: []*networkingapi.ServicePort{{Number: 80, Name: "http"}, {Number: 81, Name: "grpc", TargetPort: 82}, {Number: 83, Name: "tcp"}},
	}}
	services := EntryServices(Mesh{}, se, nil, Waypoints{}, nil)
	out := PodWorkload(around(services...), NewPod(p))
	got := map[uint32]uint32{}
	for _, p := range out.Proto.Services["a/example.com"].GetPorts() {
		got[p.ServicePort] = p.TargetPort
	}
	if len(got) != 3 || got[80] != 8080 || got[81] != 82 || got[83] != 83 {
		t.Errorf("ports are %v", got)
	}
}

func TestWorkloadName(t *testing.T) {
	yes := true
	for name, c := range map[string]struct {
		kind, owner string
		labels      map[string]string
		want        string
	}{
		"a Deployment":  {"ReplicaSet", "web-5f", map[string]string{"pod-template-hash": "5f"}, "web"},
		"a Rollout":     {"ReplicaSet", "web-5f", map[string]string{"rollouts-pod-template-hash": "5f"}, "web"},
		"a ReplicaSet":  {"ReplicaSet", "web-5f", nil, "web-5f"},
		"a StatefulSet": {"StatefulSet", "db", nil, "db"},
		"a static pod":  {"Node", "node-1", nil, "p"},
		"a CronJob":     {"Job", "nightly-28912345", nil, "nightly"},
		"a label":       {"StatefulSet", "db", map[string]string{labelWorkloadName: "other"}, "other"},
	} {
		p := pod(c.labels)
		p.OwnerReferences = []metav1.OwnerReference{{Kind: c.kind, Name: c.owner, Controller: &yes}}
		if got := workloadName(NewPod(p)); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestHostnamesThatAreResolvedHaveNoWaypointOfTheirOwn(t *testing.T) {
	se := &networkingv1.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "a"}, Spec: networkingapi.ServiceEntry{
		Hosts: []string{"example.com"}, Resolution: networkingapi.ServiceEntry_DNS, Ports: []*networkingapi.ServicePort{{Number: 80, Name: "http"}},
	}}
	in := around()
	services := EntryServices(Mesh{}, se, in.Namespace, in.Waypoints, nil)
	out := InlineWorkloads(in, se, services)
	if len(out) != 1 || out[0].Proto.Waypoint != nil || services[0].Proto.Waypoint == nil {
		t.Errorf("workloads %v of services %v", out, services)
	}
	se.Spec.Endpoints = []*networkingapi.WorkloadEntry{{Address: "192.0.2.1"}}
	if out := InlineWorkloads(in, se, services); len(out) != 1 || out[0].Proto.Waypoint == nil {
		t.Errorf("an endpoint with an address: %v", out)
	}
}

func TestSlicesNameOnePod(t *testing.T) {
	service := &Service{Proto: &workload.Service{Namespace: "a", Hostname: "s", Ports: []*workload.Port{{ServicePort: 80}}}, Ports: []ServicePort{{Name: "http"}}}
	name, number := "http", int32(8080)
	for uid, serves := range map[types.UID]bool{"": true, "new": true, "old": false} {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s-1"}, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &number}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "a", Name: "p", UID: uid}}},
		}
		in := around()
		in.Named = func(string) []NamedSlice { return []NamedSlice{{slice, service}} }
		out := PodWorkload(in, NewPod(pod(nil)))
		if (out.Proto.Services["a/s"] != nil) != serves {
			t.Errorf("UID %q: services %v", uid, out.Proto.Services)
		}
	}
}
