package status

import (
	"encoding/json"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func TestPlan(t *testing.T) {
	now := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	const t1, t2 = `"2030-01-01T00:00:00Z"`, `"2030-01-02T00:00:00Z"`
	const ours, theirs = "istio.io/gateway-controller", "example.org/other"
	for name, c := range map[string]struct {
		group, live, wanted, want string // want is empty when nothing is to be written
		owns                      bool
	}{
		"new conditions have the time of now": {
			wanted: `{conditions: [{type: istio.io/WaypointBound, status: "True", lastTransitionTime: null}]}`,
			want:   `{conditions: [{type: istio.io/WaypointBound, status: "True", lastTransitionTime: ` + t2 + `}]}`,
		},
		"the same is not written again": {
			live:   `{loadBalancer: {}, conditions: [{type: istio.io/WaypointBound, status: "True", observedGeneration: 3, lastTransitionTime: ` + t1 + `}]}`,
			wanted: `{conditions: [{type: istio.io/WaypointBound, status: "True", observedGeneration: 3, lastTransitionTime: null}]}`,
		},
		"the time stays while the status does": {
			live:   `{conditions: [{type: istio.io/WaypointBound, status: "True", reason: A, lastTransitionTime: ` + t1 + `}]}`,
			wanted: `{conditions: [{type: istio.io/WaypointBound, status: "True", reason: B, lastTransitionTime: null}]}`,
			want:   `{conditions: [{type: istio.io/WaypointBound, status: "True", reason: B, lastTransitionTime: ` + t1 + `}]}`,
		},
		"a count that is nothing any more goes": {
			group: groupGateway, owns: true, live: `{attachedListenerSets: 1, conditions: [{type: Accepted, status: "True", lastTransitionTime: ` + t1 + `}]}`,
			wanted: `{conditions: [{type: Accepted, status: "True", lastTransitionTime: null}]}`,
			want:   `{conditions: [{type: Accepted, status: "True", lastTransitionTime: ` + t1 + `}]}`,
		},
		"one that is somebody else's stays": {
			group: groupGateway, live: `{attachedListenerSets: 1, conditions: [{type: Accepted, status: "True", lastTransitionTime: ` + t1 + `}]}`,
			wanted: `{conditions: [{type: Accepted, status: "True", lastTransitionTime: null}]}`,
		},
		"conditions of others are left to the API server where it merges them": {
			live:   `{conditions: [{type: Other, status: "True"}]}`,
			wanted: `{conditions: [{type: istio.io/WaypointBound, status: "True"}]}`,
			want:   `{conditions: [{type: istio.io/WaypointBound, status: "True"}]}`,
		},
		"they are written along where it replaces the list": {
			group: groupNetworking, live: `{conditions: [{type: Other, status: "True"}, {type: Accepted, status: "True"}]}`,
			wanted: `{observedGeneration: 2, conditions: [{type: ResolvedRefs, status: "True"}]}`,
			want:   `{observedGeneration: 2, conditions: [{type: Other, status: "True"}, {type: ResolvedRefs, status: "True"}]}`,
		},
		"what is ours goes when there is nothing to say": {
			group: groupNetworking, live: `{observedGeneration: 2, addresses: [a], conditions: [{type: Other}, {type: Accepted}]}`, owns: true,
			want: `{conditions: [{type: Other}]}`,
		},
		"all that is ours goes":                       {live: `{conditions: [{type: istio.io/WaypointBound}]}`, owns: true, want: `{}`},
		"all that is ours of a custom resource":       {group: groupNetworking, live: `{conditions: [{type: Accepted}]}`, owns: true, want: `{conditions: []}`},
		"what is not ours stays":                      {live: `{conditions: [{type: Accepted}]}`},
		"nothing is nothing":                          {owns: false},
		"addresses are somebody else's":               {group: groupGateway, live: `{addresses: [{value: a}]}`, wanted: `{addresses: []}`},
		"a route without parents has the list anyway": {group: groupGateway, wanted: `{parents: []}`},
		"parents of other controllers stay": {
			group: groupGateway,
			live: `{parents: [{controllerName: ` + theirs + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: x}}, {controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: old}},
			  {controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: kept, port: 80}, conditions: [{type: Accepted, status: "True", lastTransitionTime: ` + t1 + `}]}]}`,
			wanted: `{parents: [{controllerName: ` + ours + `, parentRef: {name: new}}, {controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: kept, port: 80}, conditions: [{type: Accepted, status: "True", lastTransitionTime: null}]}]}`,
			want: `{parents: [{controllerName: ` + theirs + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: x}}, {controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: kept, port: 80},
			  conditions: [{type: Accepted, status: "True", lastTransitionTime: ` + t1 + `}]}, {controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: new}}]}`,
		},
		"another order is no change": {
			group: groupGateway, live: `{parents: [{controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: a}}, {controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: b}}]}`,
			wanted: `{parents: [{controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: b}}, {controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: a}}]}`,
		},
		"our parents go, those of others do not": {
			group: groupGateway, live: `{parents: [{controllerName: ` + ours + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: a}}, {controllerName: ` + theirs + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: b}}]}`, owns: true,
			want: `{parents: [{controllerName: ` + theirs + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: b}}]}`,
		},
		"a route that was never ours": {group: groupGateway, live: `{parents: [{controllerName: ` + theirs + `, parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: b}}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(text string) (out map[string]any) {
				if err := yaml.Unmarshal([]byte(text), &out); err != nil {
					t.Fatal(err)
				}
				return out
			}
			next, changed := plan(c.group, read(c.live), read(c.wanted), c.owns, now)
			got := ""
			if changed {
				data, err := json.Marshal(next)
				if err != nil {
					t.Fatal(err)
				}
				got = string(data)
			}
			want := ""
			if c.want != "" {
				data, err := json.Marshal(read(c.want))
				if err != nil {
					t.Fatal(err)
				}
				want = string(data)
			}
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestPlural(t *testing.T) {
	for kind, want := range map[string]string{
		"Gateway": "gateways", "GatewayClass": "gatewayclasses", "AuthorizationPolicy": "authorizationpolicies", "ServiceEntry": "serviceentries",
		"HTTPRoute": "httproutes", "Telemetry": "telemetries", "Service": "services", "BackendTLSPolicy": "backendtlspolicies",
	} {
		if got := plural(kind); got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
}
