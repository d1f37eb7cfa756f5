// Package deploytest has Gateways for tests of what they are deployed as.
package deploytest

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// Gateway reads one.
func Gateway(t *testing.T, text string) *gatewayv1.Gateway {
	t.Helper()
	gw := &gatewayv1.Gateway{}
	if err := yaml.UnmarshalStrict([]byte(text), gw); err != nil {
		t.Fatal(err)
	}
	gw.UID = "f3b1"
	return gw
}

// Waypoint is that of the namespace default.
const Waypoint = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: waypoint
  namespace: default
  labels: {istio.io/waypoint-for: service}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE}
`

// Ingress is one with two ports, which says much of its deployment.
const Ingress = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: bookinfo-gateway
  namespace: shop
  labels: {not: copied}
spec:
  gatewayClassName: istio
  infrastructure:
    labels: {team: books, topology.istio.io/network: east}
    annotations: {owner: "somebody", proxy.istio.io/config: "{proxyMetadata: {A: b}, drainDuration: 9s}"}
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}
  - {name: http-too, port: 80, protocol: HTTP, hostname: other.example.org}
  - {name: Secure.Web, port: 443, protocol: HTTPS}
`
