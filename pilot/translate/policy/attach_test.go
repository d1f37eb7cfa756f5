package policy

import (
	"slices"
	"testing"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/yaml"
)

func TestAttached(t *testing.T) {
	all := map[string]string{
		"service":            "{targetRefs: [{kind: Service, group: '', name: reviews}]}",
		"service-core":       "{targetRefs: [{kind: Service, group: core, name: reviews}]}",
		"service-singular":   "{targetRef: {kind: Service, name: reviews}}",
		"other-service":      "{targetRefs: [{kind: Service, name: ratings}]}",
		"two-services":       "{targetRefs: [{kind: Service, name: ratings}, {kind: Service, name: reviews}]}",
		"entry":              "{targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: reviews}]}",
		"wrong-group":        "{targetRefs: [{kind: Service, group: apps, name: reviews}]}",
		"other-namespace":    "{targetRefs: [{kind: Service, name: reviews, namespace: elsewhere}]}",
		"gateway":            "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]}",
		"class":              "{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]}",
		"other-class":        "{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio}]}",
		"selector":           "{selector: {matchLabels: {app: gw}}}",
		"other-selector":     "{selector: {matchLabels: {app: x}}}",
		"namespace":          "{}",
		"elsewhere/service":  "{targetRefs: [{kind: Service, name: reviews}]}",
		"elsewhere/gateway":  "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]}",
		"elsewhere/all":      "{}",
		"root/class":         "{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]}",
		"root/class-istio":   "{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio}]}",
		"root/gateway":       "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]}",
		"root/all":           "{}",
		"root/selector":      "{selector: {matchLabels: {app: gw}}}",
		"root/wrong-labels":  "{selector: {matchLabels: {app: gw, tier: front}}}",
		"elsewhere/selector": "{selector: {matchLabels: {app: gw}}}",
	}
	var policies []*securityv1.AuthorizationPolicy
	var requests []*securityv1.RequestAuthentication
	for name, spec := range all {
		p := parse(t, spec)
		p.Name = name
		ra := &securityv1.RequestAuthentication{}
		if err := yaml.Unmarshal([]byte("spec: "+spec), ra); err != nil {
			t.Fatal(err)
		}
		if namespace, _, ok := cutLast(name); ok {
			p.Namespace = namespace
		}
		ra.ObjectMeta = p.ObjectMeta
		policies, requests = append(policies, p), append(requests, ra)
	}
	tests := []struct {
		name   string
		target Target
		want   []string
	}{
		{
			"waypoint, Service",
			Target{Proxy: Waypoint, RootNamespace: "root", Namespace: "default", Gateway: "waypoint", Labels: map[string]string{"app": "gw"}, Services: []ServiceRef{{KindService, "default", "reviews"}}},
			[]string{"gateway", "root/class", "service", "service-core", "service-singular", "two-services"},
		},
		{
			"waypoint, ServiceEntry",
			Target{Proxy: Waypoint, RootNamespace: "root", Namespace: "default", Gateway: "waypoint", Services: []ServiceRef{{KindServiceEntry, "default", "reviews"}}},
			[]string{"entry", "gateway", "root/class"},
		},
		{
			"waypoint of another namespace",
			Target{Proxy: Waypoint, RootNamespace: "root", Namespace: "infra", Gateway: "waypoint", Services: []ServiceRef{{KindService, "elsewhere", "reviews"}}},
			[]string{"elsewhere/service", "root/class"},
		},
		{
			"gateway",
			Target{Proxy: Gateway, RootNamespace: "root", Namespace: "default", Gateway: "waypoint", Labels: map[string]string{"app": "gw"}},
			[]string{"gateway", "namespace", "root/all", "root/selector", "selector"},
		},
		{
			"classic gateway",
			Target{Proxy: Gateway, RootNamespace: "root", Namespace: "elsewhere", Labels: map[string]string{"app": "x"}},
			[]string{"elsewhere/all", "root/all"},
		},
	}
	for _, tt := range tests {
		var got []string
		for _, p := range Attached(tt.target, policies) {
			got = append(got, p.Name)
		}
		var gotRequests []string
		for _, p := range AttachedRequestAuthentications(tt.target, requests) {
			gotRequests = append(gotRequests, p.Name)
		}
		slices.Sort(got)
		slices.Sort(gotRequests)
		if !slices.Equal(got, tt.want) || !slices.Equal(gotRequests, tt.want) {
			t.Errorf("%s: attached %v and %v, want %v", tt.name, got, gotRequests, tt.want)
		}
	}
}

func cutLast(name string) (namespace, rest string, ok bool) {
	for i := range len(name) {
		if name[i] == '/' {
			return name[:i], name[i+1:], true
		}
	}
	return "", name, false
}
