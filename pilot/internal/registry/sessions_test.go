package registry

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

const sticky = "istio.io/use-waypoint: wp, istio.io/persistent-session: sid"

// leavingPod is one that is being deleted.
func leavingPod(name, app, node string, n int) string {
	return strings.Replace(placedPod(name, app, node, "True", n), "labels:", "deletionTimestamp: \"2026-01-01T00:00:00Z\", labels:", 1)
}

// The label of a Service has its waypoint keep sessions, also with pods that are about to go, and says nothing to anybody else.
func TestSessionOfService(t *testing.T) {
	w := newWorld(t, zones(), serviceYAML("shop", "ratings", "10.96.0.2", "istio.io/use-waypoint: wp"))
	w.r.Scopes().Open(shopScope)
	w.took()
	w.apply(serviceYAML("shop", "reviews", "10.96.0.1", sticky))
	const name = "inbound-vip|9080|http|reviews.shop.svc.cluster.local"
	w.expect(shopScope+" cds "+name, shopScope+" rds "+name)
	var routes routev3.RouteConfiguration
	if err := proto.Unmarshal([]byte(w.has[shopScope]["rds "+name]), &routes); err != nil {
		t.Fatal(err)
	}
	if filters := routes.GetVirtualHosts()[0].GetRoutes()[0].GetTypedPerFilterConfig(); filters[route.SessionFilter] == nil {
		t.Errorf("the route says %v", filters)
	}
	var cluster clusterv3.Cluster
	if err := proto.Unmarshal([]byte(w.has[shopScope]["cds "+name]), &cluster); err != nil {
		t.Fatal(err)
	}
	common := cluster.GetCommonLbConfig()
	if n := len(common.GetOverrideHostStatus().GetStatuses()); n != 4 || common.GetHealthyPanicThreshold() == nil || common.GetHealthyPanicThreshold().GetValue() != 0 {
		t.Errorf("the cluster says %v", common)
	}
	w.apply(leavingPod("reviews-a", "reviews", "node-a", 1))
	if got, want := w.priorities(shopScope), "0a "+corev3.HealthStatus_DRAINING.String()+", 0b HEALTHY"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	w.apply(serviceYAML("shop", "reviews", "10.96.0.1", "istio.io/use-waypoint: wp"))
	if got := w.priorities(shopScope); got != "0b HEALTHY" {
		t.Errorf("without sessions: %s", got)
	}
}

// A gateway keeps the sessions of a service, unless it goes by way of the service's waypoint, which then does.
func TestSessionAtGateway(t *testing.T) {
	edge := `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]}
`
	for labels, want := range map[string]bool{
		"istio.io/use-waypoint: wp": false, sticky: true, sticky + ", istio.io/ingress-use-waypoint: \"true\"": false,
		"istio.io/persistent-session-header: x-session": true,
	} {
		w := newWorld(t, zones(), reachedWaypoint, edge, serviceYAML("shop", "reviews", "10.96.0.1", labels))
		w.r.Scopes().Open("router/shop/istio=edge")
		var routes routev3.RouteConfiguration
		for name, text := range w.has["router/shop/istio=edge"] {
			if strings.HasPrefix(name, "rds ") {
				if err := proto.Unmarshal([]byte(text), &routes); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(routes.GetVirtualHosts()) == 0 {
			t.Fatalf("%s: no routes", labels)
		}
		if got := routes.GetVirtualHosts()[0].GetRoutes()[0].GetTypedPerFilterConfig()[route.SessionFilter] != nil; got != want {
			t.Errorf("%s: sessions are kept: %t, want %t", labels, got, want)
		}
	}
}
