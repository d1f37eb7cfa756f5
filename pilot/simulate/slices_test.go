package simulate

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// TestSlicesThatNamePods: a pod serves the Services whose slices name it, where no selector says which pods do.
func TestSlicesThatNamePods(t *testing.T) {
	t.Parallel()
	const pod, by = `
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: a}}
spec: {containers: [{name: a, image: a}]}
status: {podIP: 10.0.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: manual, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: selecting, namespace: shop}
spec: {clusterIP: 10.96.0.10, selector: {app: b}, ports: [{name: http, port: 80}]}
`, `
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: `
	slice := func(name, service, more, endpoint string) string {
		return by + name + `, namespace: shop, labels: {kubernetes.io/service-name: ` + service + more + `}}
addressType: IPv4
ports: [{name: http, port: 3000, protocol: TCP}]
endpoints: [{addresses: [10.0.0.1], ` + endpoint + `}]
`
	}
	const named = `targetRef: {kind: Pod, name: a, namespace: shop}`
	for name, c := range map[string]struct {
		text string
		want uint32
	}{
		"named":             {slice("s", "manual", "", named), 3000},
		"not ready":         {slice("s", "manual", "", `conditions: {ready: false}, `+named), 0},
		"of a selector":     {slice("s", "selecting", "", named), 0},
		"by the controller": {slice("s", "manual", ", endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io", named), 0},
		"of no service":     {slice("s", "other", "", named), 0},
		"another pod":       {slice("s", "manual", "", `targetRef: {kind: Pod, name: b, namespace: shop}`), 0},
	} {
		decoded, problems := kube.Decode("f", []byte(pod+c.text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		var all []kube.Object
		for _, d := range decoded {
			all = append(all, d.Object)
		}
		m, err := New(Settings{}, NewCompleter().Complete(all).Objects)
		if err != nil {
			t.Fatal(err)
		}
		var got uint32
		for _, w := range m.Workloads() {
			for key, ports := range w.Proto.Services {
				if w.Proto.Name == "a" && len(ports.Ports) == 1 {
					got = ports.Ports[0].TargetPort
					if key != "shop/manual.shop.svc.cluster.local" {
						t.Errorf("%s: serves %s", name, key)
					}
				}
			}
		}
		if got != c.want {
			t.Errorf("%s: port %d, want %d", name, got, c.want)
		}
	}
}
