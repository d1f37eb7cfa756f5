package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// setsWorld has a Gateway of the namespace edge, whose pods have the account api-istio, and which takes ListenerSets of team.
const setsWorld = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: api, namespace: edge}
spec:
  gatewayClassName: istio
  allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: "yes"}}}}
  listeners:
  - {name: http, port: 80, protocol: HTTP, hostname: edge.example.com}
  - {name: own, port: 443, protocol: HTTPS, hostname: own.example.com, tls: {certificateRefs: [{name: own}]}}
  - {name: borrowed, port: 443, protocol: HTTPS, hostname: borrowed.example.com, tls: {certificateRefs: [{name: lent, namespace: vault}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: edge, labels: {gateway.networking.k8s.io/gateway-name: api}}
spec: {serviceAccountName: api-istio, nodeName: node-1, containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.9, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: closed-1, namespace: edge, labels: {gateway.networking.k8s.io/gateway-name: closed}}
spec: {serviceAccountName: closed-istio, nodeName: node-1, containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.10, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: closed, namespace: edge}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: to-gateways, namespace: vault}
spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: edge}, {group: gateway.networking.k8s.io, kind: Gateway, namespace: team}], to: [{group: "", kind: Secret, name: lent}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: to-sets, namespace: vault}
spec: {from: [{group: gateway.networking.k8s.io, kind: ListenerSet, namespace: team}, {group: gateway.networking.k8s.io, kind: ListenerSet, namespace: edge}], to: [{group: "", kind: Secret, name: granted}]}
---
` + teamNamespace + shopSet

const teamNamespace = `apiVersion: v1
kind: Namespace
metadata: {name: team, labels: {team: "yes"}}
---
`

// shopSet names what it may, and what it may not: a Secret of the Gateway's namespace, those that are granted to Gateways, and one that
// nobody grants.
const shopSet = `apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: shop, namespace: team}
spec:
  parentRef: {name: api, namespace: edge}
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: shop.example.com, tls: {certificateRefs: [{name: shop}]}}
  - {name: granted, port: 443, protocol: HTTPS, hostname: granted.example.com, tls: {certificateRefs: [{name: granted, namespace: vault}]}}
  - {name: of-the-gateway, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {certificateRefs: [{name: unused, namespace: edge}]}}
  - {name: lent-to-the-gateway, port: 443, protocol: HTTPS, hostname: b.example.com, tls: {certificateRefs: [{name: lent, namespace: vault}, {name: shop}]}}
  - {name: not-granted, port: 443, protocol: HTTPS, hostname: c.example.com, tls: {certificateRefs: [{name: kept, namespace: vault}]}}
  - {name: conflicted, port: 443, protocol: HTTPS, hostname: own.example.com, tls: {certificateRefs: [{name: hidden}]}}
---
`

const shopStatus = "gateway.networking.k8s.io/ListenerSet/team/shop"

func setSecrets(t *testing.T) (out string) {
	t.Helper()
	for _, name := range []string{"edge/own", "edge/unused", "team/shop", "team/hidden", "vault/lent", "vault/granted", "vault/kept", "stranger/shop"} {
		namespace, name, _ := strings.Cut(name, "/")
		out += secretYAML(t, namespace, name)
	}
	return out
}

func ownSecrets() []string {
	return []string{"sds kubernetes-gateway://edge/own", "sds kubernetes-gateway://vault/lent"}
}

// The author of a ListenerSet lends the Gateway Secrets of his own namespace, and those that are granted to ListenerSets of it: nothing
// that the Gateway may have, and he may not; and to nobody but the pods of that Gateway.
func TestListenerSetCredentialsReachOnlyWhoMayHaveThem(t *testing.T) {
	w := newWorld(t, setsWorld+setSecrets(t))
	api, closed := map[string]any{labelGatewayName: "api"}, map[string]any{labelGatewayName: "closed"}
	lent := []string{"sds kubernetes-gateway://edge/own", "sds kubernetes-gateway://team/shop", "sds kubernetes-gateway://vault/granted", "sds kubernetes-gateway://vault/lent"}
	for _, tt := range []struct {
		name, namespace, account string
		labels                   map[string]any
		claims                   string // namespace that the node says it is of
		want                     []string
	}{
		{"the Gateway's pods", "edge", "api-istio", api, "edge", lent},
		{"another account of the Gateway's namespace", "edge", "default", api, "edge", nil},
		{"an account of the ListenerSet's namespace", "team", "api-istio", api, "team", nil},
		{"one that says it is of the Gateway's", "team", "api-istio", api, "edge", nil},
		{"another Gateway's pods", "edge", "closed-istio", closed, "edge", nil},
		{"another Gateway's pods that say they are this one's", "edge", "closed-istio", api, "edge", nil},
		{"a classic gateway", "team", "gw", map[string]any{"istio": "ingressgateway"}, "team", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scope := w.connect(routerNode(t, tt.claims, tt.labels), server.Peer{Namespace: tt.namespace, ServiceAccount: tt.account})
			if got := w.names(scope); !slices.Equal(got, tt.want) {
				t.Errorf("%s has %v, want %v", scope, got, tt.want)
			}
		})
	}
	for want, n := range map[string]int{`"RefNotPermitted"`: 3, `"HostnameConflict"`: 3} {
		if s := w.status(shopStatus); strings.Count(s, want) != n {
			t.Errorf("%s is there %d times, want %d: %s", want, strings.Count(s, want), n, s)
		}
	}
}

// What is not taken lends nothing, and what is taken back is gone.
func TestListenerSetCredentialsFollowWhatIsAllowed(t *testing.T) {
	w := newWorld(t, setsWorld+setSecrets(t))
	scope := w.connect(routerNode(t, "edge", map[string]any{labelGatewayName: "api"}), server.Peer{Namespace: "edge", ServiceAccount: "api-istio"})
	lent := w.names(scope)
	if len(lent) != 4 {
		t.Fatal(lent)
	}
	restored := func() {
		t.Helper()
		w.apply(setsWorld)
		if got := w.names(scope); !slices.Equal(got, lent) {
			t.Fatalf("%v", got)
		}
	}
	refused := func(when, reason string, want ...string) {
		t.Helper()
		if got := w.names(scope); !slices.Equal(got, append(ownSecrets(), want...)) {
			t.Errorf("%s: %v", when, got)
		}
		if s := w.status(shopStatus); !strings.Contains(s, reason) {
			t.Errorf("%s: %s", when, s)
		}
	}
	w.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n")
	refused("without the label", "NotAllowed")
	restored()
	w.remove(teamNamespace)
	refused("without the namespace", "NotAllowed")
	restored()
	w.apply(strings.ReplaceAll(shopSet, "name: api, namespace: edge", "name: closed, namespace: edge"))
	refused("for another Gateway", "NotAllowed")
	restored()
	w.apply(strings.ReplaceAll(shopSet, "{name: api, namespace: edge}", "{kind: Service, name: api, namespace: edge}"))
	refused("for something else", "")
	restored()
	w.remove(shopSet)
	refused("gone", "")
	if s := w.status(shopStatus); s != "" {
		t.Error(s)
	}
	w.apply(strings.ReplaceAll(shopSet, "namespace: team", "namespace: stranger"))
	refused("in a namespace that is not allowed", "")
	restored()
	w.remove("apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: to-sets, namespace: vault}\n")
	if got := w.names(scope); slices.Contains(got, "sds kubernetes-gateway://vault/granted") || len(got) != 3 {
		t.Errorf("without the grant: %v", got)
	}
}

// Only what may be used is read.
func TestListenerSetCredentialsThatAreLookedUp(t *testing.T) {
	w := &world{t: t, r: New(Mesh{}, WithLookups()), has: map[string]map[string]string{}}
	w.sink = w.r.Sink(nil)
	w.apply(setsWorld)
	w.sink.Synced()
	w.r.PublishTo(w)
	var wanted Wanted
	defer w.r.FollowCredentials(func(now Wanted) { wanted = now })()
	var got []string
	for o := range wanted.Objects {
		got = append(got, o.String())
	}
	slices.Sort(got)
	want := []string{"Secret edge/own", "Secret team/hidden", "Secret team/shop", "Secret vault/granted", "Secret vault/lent"}
	if !slices.Equal(got, want) {
		t.Errorf("wanted %v, want %v", got, want)
	}
	if s := w.status(shopStatus); !strings.Contains(s, credential.ErrPending.Error()) {
		t.Errorf("judged before anybody has looked: %s", s)
	}
	for o := range wanted.Objects {
		w.r.SetLookups([]Lookup{{Source: o}})
	}
	if s := w.status(shopStatus); !strings.Contains(s, "there is no "+credential.Source{Kind: credential.Secret, Namespace: "team", Name: "shop"}.String()) {
		t.Error(s)
	}
}

// A gateway gets the listeners of ListenerSets, and their routes: each change is told once, to whom it concerns.
func TestListenerSetsChangeTheirGateway(t *testing.T) {
	w := newWorld(t, setsWorld)
	var told []string
	defer w.r.FollowAddedListeners(func(gateways []string) { told = append(told, gateways...) })()
	scope := w.open(routerNode(t, "edge", map[string]any{labelGatewayName: "api"}), ListenerType)
	other := w.open(routerNode(t, "edge", map[string]any{labelGatewayName: "closed"}), ListenerType)
	ports := func() (out []uint32) {
		for name, data := range w.has[scope] {
			l := &listenerv3.Listener{}
			if !strings.HasPrefix(name, "lds ") {
				continue
			}
			if err := proto.Unmarshal([]byte(data), l); err != nil {
				t.Fatal(err)
			}
			if port := l.GetAddress().GetSocketAddress().GetPortValue(); port != 0 {
				out = append(out, port)
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	if got := fmt.Sprint(ports(), told, len(w.r.AddedListeners("edge/api"))); got != "[80 443 8080] [edge/api] 6" {
		t.Error(got)
	}
	w.took()
	w.apply(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: team}
spec: {parentRefs: [{kind: ListenerSet, name: shop, sectionName: http}], rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: shop.example.com}}]}]}
`)
	w.expect(scope + " rds http.8080")
	if s := w.status("gateway.networking.k8s.io/HTTPRoute/team/shop"); !strings.Contains(s, `"kind":"ListenerSet"`) || strings.Contains(s, `"False"`) {
		t.Error(s)
	}
	if s := w.status(shopStatus); !strings.Contains(s, `"attachedRoutes":1`) {
		t.Error(s)
	}
	w.apply("apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {name: shop, namespace: team}\nspec: {parentRef: {name: api, namespace: edge}, listeners: [{name: http, port: 8081, protocol: HTTP}]}\n")
	if got := fmt.Sprint(ports(), told); got != "[80 443 8081] [edge/api edge/api]" {
		t.Error(got)
	}
	for _, change := range w.took() {
		if strings.HasPrefix(change, other) {
			t.Errorf("another gateway is told: %s", change)
		}
	}
	w.remove(shopSet)
	if got := fmt.Sprint(ports(), told, w.r.AddedListeners("edge/api")); got != "[80 443] [edge/api edge/api edge/api] []" {
		t.Error(got)
	}
	if s := w.status("gateway.networking.k8s.io/HTTPRoute/team/shop"); strings.Contains(s, "ListenerSet") {
		t.Error(s)
	}
}
