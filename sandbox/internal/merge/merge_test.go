package merge_test

import (
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/merge"
)

func object(t *testing.T, text string) manifest.Object {
	t.Helper()
	objects, errs := manifest.Decode("test.yaml", []byte(text))
	if len(errs) > 0 || len(objects) != 1 {
		t.Fatalf("%d objects, %v", len(objects), errs)
	}
	return objects[0]
}

func TestApply(t *testing.T) {
	for name, c := range map[string]struct{ last, live, next, want string }{
		"labels of others stay, own ones that are left out go": {
			last: `{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {mine: x, gone: x}}}`,
			live: `{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {mine: x, gone: x, istio.io/dataplane-mode: ambient}}}`,
			next: `{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {mine: other}}}`,
			want: `{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {mine: other, istio.io/dataplane-mode: ambient}}}`,
		},
		"a number of replicas that the manifest does not name stays": {
			last: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {template: {metadata: {labels: {a: b}}}}}`,
			live: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 3, template: {metadata: {labels: {a: b}}}}, status: {replicas: 3}}`,
			next: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {template: {metadata: {labels: {a: c}}}}}`,
			want: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 3, template: {metadata: {labels: {a: c}}}}, status: {replicas: 3}}`,
		},
		"one that it names holds": {
			last: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 1}}`,
			live: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 3}}`,
			next: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 1}}`,
			want: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 1}}`,
		},
		"a Service keeps its address and node ports": {
			live: `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: NodePort, clusterIP: 10.96.0.40, clusterIPs: [10.96.0.40], ports: [{port: 80, nodePort: 30001}]}}`,
			next: `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: NodePort, ports: [{port: 80}, {port: 81}]}}`,
			want: `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: NodePort, clusterIP: 10.96.0.40, clusterIPs: [10.96.0.40], ports: [{port: 80, nodePort: 30001}, {port: 81}]}}`,
		},
		"a Service that becomes headless": {
			live: `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ClusterIP, clusterIP: 10.96.0.40, clusterIPs: [10.96.0.40]}}`,
			next: `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: None}}`,
			want: `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ClusterIP, clusterIP: None}}`,
		},
		"an object that only the mesh reads": {
			last: `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a], http: [1]}}`,
			live: `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a, annotations: {by: hand}}, spec: {hosts: [a], http: [1]}, status: {x: y}}`,
			next: `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [b]}}`,
			want: `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a, annotations: {by: hand}}, spec: {hosts: [b]}, status: {x: y}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var last map[string]any
			if c.last != "" {
				var err error
				if last, err = merge.Intent(object(t, c.last)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := merge.Apply(last, object(t, c.live), object(t, c.next))
			if err != nil {
				t.Fatal(err)
			}
			text, err := yaml.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			want, err := yaml.Marshal(object(t, c.want))
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != string(want) {
				t.Errorf("got\n%s\nwant\n%s", text, want)
			}
		})
	}
}
