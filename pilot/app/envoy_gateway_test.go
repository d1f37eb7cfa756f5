package app

import (
	"strings"
	"testing"
)

func TestEnvoyAsGateway(t *testing.T) {
	for _, c := range []struct {
		name      string
		proxy     proxy
		listeners []string
		route     string
	}{
		{
			"classic, delta",
			proxy{"router~10.244.1.20~istio-ingressgateway-1.istio-system~istio-system.svc.cluster.local", "istio-system", `{"istio": "ingressgateway", "app": "istio-ingressgateway"}`, "DELTA_GRPC"},
			[]string{"connect_originate::", "0.0.0.0_8080::0.0.0.0:8080", "0.0.0.0_8443::0.0.0.0:8443"},
			"http.8080",
		},
		{
			"Gateway API, state of the world",
			proxy{"router~10.244.1.21~web-1.default~default.svc.cluster.local", "default", `{"gateway.networking.k8s.io/gateway-name": "web"}`, "GRPC"},
			[]string{"connect_originate::", "0.0.0.0_80::0.0.0.0:80"},
			"http.80",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "mesh.yaml", gatewayMesh)
			addr := start(t, dir)
			e := startEnvoy(t, addr.GRPC.String(), c.proxy)
			e.accepted()
			e.until("/clusters", "the pod is there", func(b string) bool {
				return strings.Contains(b, "outbound|9080||productpage.default.svc.cluster.local::envoy://connect_originate/10.244.1.8:9080::health_flags::healthy")
			})
			listeners := e.until("/listeners", "all listeners are up", func(b string) bool { return strings.Count(b, "\n") == len(c.listeners) })
			for _, l := range c.listeners {
				if !strings.Contains(listeners, l) {
					t.Errorf("no %s in %s", l, listeners)
				}
			}
			e.until("/config_dump?resource=dynamic_route_configs", "the routes are there", func(b string) bool {
				return strings.Contains(b, `"`+c.route+`"`) && strings.Contains(b, "outbound|9080||productpage.default.svc.cluster.local")
			})
			e.accepted()
		})
	}
}
