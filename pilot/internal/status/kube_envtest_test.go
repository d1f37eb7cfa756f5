//go:build envtest

package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// bed is a writer against a real API server.
type bed struct {
	t *testing.T
	k *Kube
}

func (b *bed) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.k.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
}

// apply writes a manifest as its owner does, or its status as another controller does.
func (b *bed) apply(text string, subresources ...string) {
	b.t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		b.t.Fatal(err)
	}
	data, err := json.Marshal(u.Object)
	if err != nil {
		b.t.Fatal(err)
	}
	o := object{u.GroupVersionKind(), u.GetNamespace(), u.GetName()}
	if _, err := b.k.client(o).Patch(b.t.Context(), o.name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "other"}, subresources...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) status(kind schema.GroupVersionKind, name string) string {
	u, err := b.k.client(object{kind, "default", name}).Get(b.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	status, _ := u.Object["status"].(map[string]any)
	withoutTimes(status)
	data, err := json.Marshal(status)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

func withoutTimes(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "lastTransitionTime")
		for _, child := range v {
			withoutTimes(child)
		}
	case []any:
		for _, child := range v {
			withoutTimes(child)
		}
	}
}

func (b *bed) has(kind schema.GroupVersionKind, name, want string) {
	b.t.Helper()
	var wanted any
	if err := yaml.Unmarshal([]byte(want), &wanted); err != nil {
		b.t.Fatal(err)
	}
	text, err := json.Marshal(wanted)
	if err != nil {
		b.t.Fatal(err)
	}
	got := ""
	wait.Until(b.t, time.Minute, kind.Kind+" "+name+" is "+string(text), func() bool {
		got = b.status(kind, name)
		return got == string(text)
	}, func() string { return "it is " + got })
}

func (b *bed) changed(kind schema.GroupVersionKind, name, content string) {
	b.t.Helper()
	s := registry.Status{GroupVersionKind: kind, Namespace: "default", Name: name}
	if content != "" {
		data, err := yaml.YAMLToJSON([]byte(content))
		if err != nil {
			b.t.Fatal(err)
		}
		s.Content = data
	}
	b.k.Changed([]registry.Status{s})
}

func condition(kind, status, reason string) string {
	return fmt.Sprintf(`{type: %s, status: %q, reason: %s, message: "", lastTransitionTime: null}`, kind, status, reason)
}

func plain(kind, status, reason string) string {
	return fmt.Sprintf(`{type: %s, status: %q, reason: %s, message: ""}`, kind, status, reason)
}

func TestKube(t *testing.T) {
	k, err := NewKube(KubeConfig{REST: kubetest.Start(t), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t, k}
	service := schema.GroupVersionKind{Version: "v1", Kind: "Service"}
	route := schema.GroupVersionKind{Group: groupGateway, Version: "v1", Kind: "HTTPRoute"}
	gateway := schema.GroupVersionKind{Group: groupGateway, Version: "v1", Kind: "Gateway"}
	class := schema.GroupVersionKind{Group: groupGateway, Version: "v1", Kind: "GatewayClass"}
	virtual := schema.GroupVersionKind{Group: groupNetworking, Version: "v1", Kind: "VirtualService"}
	entry := schema.GroupVersionKind{Group: groupNetworking, Version: "v1", Kind: "ServiceEntry"}

	b.apply(`{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: default}, spec: {ports: [{port: 80}]}}`)
	b.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: default}, spec: {parentRefs: [{name: a}, {name: b}]}}`)
	const other = `{controllerName: example.org/other, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: b}, conditions: [` +
		`{type: Accepted, status: "True", reason: Accepted, message: "", lastTransitionTime: "2020-01-01T00:00:00Z"}]}`
	const otherPlain = `{controllerName: example.org/other, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: b}, conditions: [{type: Accepted, status: "True", reason: Accepted, message: ""}]}`
	b.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: default}, status: {parents: [`+other+`]}}`, "status")
	b.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g, namespace: default}, spec: {gatewayClassName: istio, listeners: [{name: l, port: 80, protocol: HTTP}]}}`)
	b.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g, namespace: default}, status: {addresses: [{type: IPAddress, value: 192.0.2.1}]}}`, "status")
	b.apply(`{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: default}, spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}}`)
	b.apply(`{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: default}, status: {conditions: [{type: Other, status: "True", reason: R, message: ""}]}}`, "status")
	b.apply(`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: default}, spec: {hosts: [a.example.org], ports: [{number: 80, name: http}], resolution: DNS}}`)
	b.apply(`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: default}, status: {addresses: [{host: a.example.org, value: 240.240.0.1}]}}`, "status")
	b.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: c}, spec: {controllerName: istio.io/gateway-controller}}`)

	stop := b.start()
	b.changed(service, "reviews", `{conditions: [`+condition("istio.io/WaypointBound", "True", "WaypointAccepted")+`]}`)
	b.changed(service, "gone", `{conditions: [`+condition("istio.io/WaypointBound", "True", "WaypointAccepted")+`]}`)
	b.has(service, "reviews", `{loadBalancer: {}, conditions: [`+plain("istio.io/WaypointBound", "True", "WaypointAccepted")+`]}`)

	const ref = `parentRef: {name: a}, controllerName: istio.io/gateway-controller`
	b.changed(route, "r", `{parents: [{`+ref+`, conditions: [`+condition("Accepted", "True", "Accepted")+`]}]}`)
	b.has(route, "r", `{parents: [`+otherPlain+`, {parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: a}, controllerName: istio.io/gateway-controller, conditions: [`+plain("Accepted", "True", "Accepted")+`]}]}`)

	const listener = `{name: l, attachedRoutes: 1, supportedKinds: [], conditions: [`
	b.changed(gateway, "g", `{addresses: [], conditions: [`+condition("Accepted", "True", "Accepted")+`, `+condition("Programmed", "True", "Programmed")+`], listeners: [`+listener+condition("Accepted", "True", "Accepted")+`]}]}`)
	b.has(gateway, "g", `{addresses: [{type: IPAddress, value: 192.0.2.1}], conditions: [`+plain("Accepted", "True", "Accepted")+`, `+plain("Programmed", "True", "Programmed")+`], listeners: [`+listener+plain("Accepted", "True", "Accepted")+`]}]}`)

	const their = `{type: Other, status: "True", reason: R, message: ""}`
	b.changed(virtual, "v", `{observedGeneration: 1, conditions: [`+condition("Accepted", "False", "Invalid")+`]}`)
	b.has(virtual, "v", `{observedGeneration: 1, conditions: [`+their+`, `+plain("Accepted", "False", "Invalid")+`]}`)
	b.changed(entry, "e", `{conditions: [`+condition("istio.io/WaypointBound", "True", "WaypointAccepted")+`]}`)
	b.has(entry, "e", `{addresses: [{host: a.example.org, value: 240.240.0.1}], conditions: [`+plain("istio.io/WaypointBound", "True", "WaypointAccepted")+`]}`)
	s := registry.Status{GroupVersionKind: class, Name: "c", Content: json.RawMessage(`{"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": null}], "supportedFeatures": [{"name": "HTTPRoute"}]}`)}
	k.Changed([]registry.Status{s})
	until(t, "the class is accepted", func() bool {
		u, err := k.client(object{class, "", "c"}).Get(t.Context(), "c", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		features, _, _ := unstructured.NestedSlice(u.Object, "status", "supportedFeatures")
		return len(features) == 1
	})

	// Objects that are not ours any more.
	b.changed(route, "r", "")
	b.has(route, "r", `{parents: [`+otherPlain+`]}`)
	b.changed(virtual, "v", "")
	b.has(virtual, "v", `{conditions: [`+their+`]}`)
	b.changed(entry, "e", "")
	b.has(entry, "e", `{addresses: [{host: a.example.org, value: 240.240.0.1}], conditions: []}`)
	rule := schema.GroupVersionKind{Group: groupNetworking, Version: "v1", Kind: "DestinationRule"}
	b.apply(`{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d, namespace: default}, spec: {host: a}}`)
	b.changed(rule, "d", `{conditions: [`+condition("Accepted", "True", "Accepted")+`]}`)
	b.has(rule, "d", `{conditions: [`+plain("Accepted", "True", "Accepted")+`]}`)
	b.changed(rule, "d", "")
	b.has(rule, "d", `{conditions: []}`)
	stop()

	// While nobody leads nothing is written; the next leader makes up for it, also for what it has never been told of.
	b.changed(service, "reviews", "")
	b.changed(virtual, "v", `{observedGeneration: 1, conditions: [`+condition("Accepted", "True", "Accepted")+`]}`)
	if got := b.status(service, "reviews"); got == `{"loadBalancer":{}}` {
		t.Error("written without being the leader")
	}
	stop = b.start()
	defer stop()
	b.has(service, "reviews", `{loadBalancer: {}}`)
	b.has(virtual, "v", `{observedGeneration: 1, conditions: [`+their+`, `+plain("Accepted", "True", "Accepted")+`]}`)
}
