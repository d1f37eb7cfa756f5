//go:build envtest

package cluster_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
)

// everyKind has one object of each kind that a control plane reads; {v} is the label that changes.
var everyKind = []string{
	`{apiVersion: v1, kind: Namespace, metadata: {name: kinds-extra, labels: {v: "{v}"}}}`,
	`{apiVersion: v1, kind: Node, metadata: {name: kinds-node, labels: {v: "{v}"}}}`,
	`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}}`,
	`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, data: {a: b}}`,
	`{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, stringData: {a: b}}`,
	`{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}`,
	`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: a}, subjects: [{kind: ServiceAccount, name: a, namespace: kinds}]}`,
	`{apiVersion: v1, kind: Service, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {selector: {app: a}, ports: [{port: 80, name: http}]}}`,
	`{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {containers: [{name: a, image: a}]}}`,
	`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}}}`,
	`{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}}}`,
	`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}}}`,
	`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {serviceName: a, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}}}`,
	`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}]}`,
	`{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: kinds, labels: {v: "{v}"}}, spec: {controllerName: a.b/c}}`,
	`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {gatewayClassName: kinds, listeners: [{name: a, port: 80, protocol: HTTP}]}}`,
	`{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {parentRef: {name: a}, listeners: [{name: b, port: 81, protocol: HTTP}]}}`,
	`{apiVersion: gateway.networking.k8s.io/v1beta1, kind: HTTPRoute, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {rules: [{backendRefs: [{name: a, port: 80}]}]}}`,
	`{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {rules: [{backendRefs: [{name: a, port: 80}]}]}}`,
	`{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {from: [{group: a.b, kind: C, namespace: d}], to: [{group: "", kind: Service}]}}`,
	`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.1}]}}`,
	`{apiVersion: networking.istio.io/v1beta1, kind: WorkloadEntry, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {address: 10.0.0.1}}`,
	`{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {template: {serviceAccount: a}}}`,
	`{apiVersion: networking.istio.io/v1alpha3, kind: VirtualService, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {hosts: [a], http: [{timeout: 1.5s, route: [{destination: {host: a}}]}]}}`,
	`{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 300ms}}}}}`,
	`{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}}`,
	`{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {egress: [{hosts: ["./*"]}]}}`,
	`{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {}}`,
	`{apiVersion: networking.istio.io/v1beta1, kind: ProxyConfig, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {concurrency: 2}}`,
	`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {mtls: {mode: STRICT}}}`,
	`{apiVersion: security.istio.io/v1beta1, kind: AuthorizationPolicy, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {rules: [{from: [{source: {namespaces: [a]}}]}]}}`,
	`{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {jwtRules: [{issuer: a, jwksUri: "https://a.example.com/"}]}}`,
	`{apiVersion: telemetry.istio.io/v1, kind: Telemetry, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {}}`,
	`{apiVersion: policy.isthmus.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {targetRefs: [{kind: Service, name: a}], limits: [{requests: 5, per: Second, by: [{type: Header, name: x-user}]}]}}`,
	`{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: a, namespace: kinds, labels: {v: "{v}"}}, spec: {url: "oci://a/b:c"}}`,
}

func TestEveryKindIsAddedChangedAndRemoved(t *testing.T) {
	checkLeaks(t)
	a := newAPI(t, shared.REST())
	a.namespace("kinds", "")
	r, _ := run(t, cluster.Config{REST: shared.REST()})
	seen := map[string]bool{}
	for _, manifest := range everyKind {
		_, o := a.of(manifest)
		gk := o.GroupVersionKind().GroupKind()
		seen[gk.String()] = true
		name := key(o.GroupVersionKind(), kube.NameOf(o))
		for _, v := range []string{"1", "2"} {
			a.apply(strings.ReplaceAll(manifest, "{v}", v))
			eventually(t, name+" v"+v, func() bool { return label(r.get(name)) == "v"+v })
		}
		if fields := r.get(name).GetManagedFields(); fields != nil {
			t.Errorf("%s has managed fields", name)
		}
	}
	for i := len(everyKind) - 1; i >= 0; i-- {
		_, o := a.of(everyKind[i])
		if o.GetKind() == "Namespace" {
			continue // goes only with a controller
		}
		a.delete(everyKind[i])
		name := key(o.GroupVersionKind(), kube.NameOf(o))
		eventually(t, name+" removed", func() bool { return r.get(name) == nil })
	}
	for _, gvk := range cluster.MeshKinds() {
		// The standard channel of the Gateway API does not have these.
		if name := gvk.GroupKind().String(); !seen[name] && !strings.Contains("TLSRoute TCPRoute UDPRoute BackendTLSPolicy", gvk.Kind) {
			t.Errorf("%s is not tested", name)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errors) > 0 {
		t.Errorf("errors: %v", r.errors)
	}
	if r.flushes == 0 || r.synced != 1 {
		t.Errorf("%d flushes, synced %d times", r.flushes, r.synced)
	}
}

func TestOnlyWhatTheMeshReadsOfAPod(t *testing.T) {
	a := newAPI(t, shared.REST())
	a.namespace("pods", "")
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: pods, labels: {app: a}, annotations: {x/y: z, ambient.istio.io/redirection: enabled}},
  spec: {nodeName: node-1, serviceAccountName: s, volumes: [{name: v, emptyDir: {}}], containers: [{name: a, image: a, env: [{name: E, value: F}], ports: [{containerPort: 80, name: http}]}]}}`
	a.apply(pod)
	a.status(`{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: pods}, status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True", message: m}]}}`)
	r, _ := run(t, cluster.Config{REST: shared.REST(), Kinds: cluster.MeshKinds()})
	o, ok := r.get("Pod pods/a").(*corev1.Pod)
	if !ok {
		t.Fatal("no pod")
	}
	if o.Spec.Volumes != nil || o.Spec.Containers[0].Env != nil || o.Spec.Containers[0].Image != "" || o.Annotations["x/y"] != "" || o.Status.Conditions[0].Message != "" {
		t.Errorf("too much: %s", dump(o))
	}
	if o.Spec.NodeName != "node-1" || o.Spec.ServiceAccountName != "s" || o.Status.PodIPs[0].IP != "10.0.0.1" || o.Spec.Containers[0].Ports[0].ContainerPort != 80 ||
		o.Annotations["ambient.istio.io/redirection"] != "enabled" || o.Status.Conditions[0].Status != "True" || o.UID == "" {
		t.Errorf("too little: %s", dump(o))
	}
	r.events("")
	// A change of what is not read is no change.
	a.status(`{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: pods}, status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True", message: other}]}}`)
	a.status(`{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: pods}, status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}], conditions: [{type: Ready, status: "True", message: other}]}}`)
	eventually(t, "the other address", func() bool { return r.get("Pod pods/a").(*corev1.Pod).Status.PodIP == "10.0.0.2" })
	if got := r.events("pods/a"); len(got) != 1 {
		t.Errorf("changes: %v", got)
	}
	a.delete(pod)
}
