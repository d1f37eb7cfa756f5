package app

import (
	"strings"
	"testing"
)

// featureMesh has something of everything that becomes a listener, a cluster or an endpoint.
const featureMesh = `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: wp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop, labels: {istio.io/waypoint-for: all}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
status: {addresses: [{type: IPAddress, value: 10.96.0.50}]}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}
spec: {clusterIP: 10.96.0.50, selector: {gateway.networking.k8s.io/gateway-name: wp}, ports: [{name: mesh, port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: wp, gateway.istio.io/managed: istio.io-mesh-controller}}
spec: {serviceAccountName: wp, nodeName: node-1, containers: [{name: c, image: i}]}
status: {podIP: 10.244.2.50, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {istio.io/ingress-use-waypoint: "true"}}
spec: {clusterIP: 10.96.0.51, clusterIPs: [10.96.0.51, "fd00::51"], ipFamilies: [IPv4, IPv6], selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 81, targetPort: 8081}, {name: tcp, port: 82}, {name: unknown, port: 83}, {name: tls, port: 443}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart, version: v1}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: cart, nodeName: node-1, containers: [{name: c, image: i}]}
status: {podIP: 10.244.2.1, podIPs: [{ip: 10.244.2.1}, {ip: "fd00:1::1"}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s}}
    connectionPool:
      tcp: {maxConnections: 7, connectTimeout: 3s, maxConnectionDuration: 1h, tcpKeepalive: {probes: 3, time: 60s, interval: 5s}}
      http: {http1MaxPendingRequests: 8, http2MaxRequests: 9, maxRetries: 4, idleTimeout: 30s, maxConcurrentStreams: 11}
    outlierDetection: {consecutive5xxErrors: 5, consecutiveGatewayErrors: 4, interval: 2s, baseEjectionTime: 10s, maxEjectionPercent: 50, minHealthPercent: 20, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2}
    portLevelSettings:
    - {port: {number: 81}, loadBalancer: {simple: RANDOM}}
    - {port: {number: 82}, loadBalancer: {simple: PASSTHROUGH}}
  subsets:
  - {name: ring, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}
  - {name: maglev, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 1009}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example.com]
  ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP, targetPort: 443}]
  resolution: DNS
  location: MESH_EXTERNAL
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec: {host: api.example.com, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, sni: api.example.com}}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: static, namespace: shop}
spec:
  hosts: [static.example.com]
  addresses: [10.97.0.1]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1, locality: r1/z1, weight: 3}, {address: 192.0.2.2, locality: r1/z2}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: anywhere, namespace: shop}
spec:
  hosts: ["*.wild.example.com"]
  addresses: [10.97.0.2]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp, namespace: shop}
spec:
  hosts: [cart]
  http: [{match: [{uri: {prefix: /api}}], route: [{destination: {host: api.example.com, port: {number: 80}}}]}, {route: [{destination: {host: cart}}]}]
  tcp: [{match: [{port: 83}], route: [{destination: {host: cart, port: {number: 82}}, weight: 50}, {destination: {host: cart, port: {number: 83}}, weight: 50}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: cart}]
  rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {methods: [GET], ports: ["80", "82"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: shop}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}]
  action: DENY
  rules: [{from: [{source: {notPrincipals: ["*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: cart}]
  jwtRules: [{issuer: "https://issuer.example", jwks: '{"keys":[{"kty":"oct","kid":"1","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow","alg":"HS256"}]}'}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{match: [{uri: {prefix: /api}}], route: [{destination: {host: api.example.com, port: {number: 80}}}]}, {match: [{uri: {prefix: /static}}], route: [{destination: {host: static.example.com}}]}, {route: [{destination: {host: cart, port: {number: 80}, subset: ring}}]}]
  tcp: [{match: [{port: 9000}], route: [{destination: {host: cart, port: {number: 82}}}]}]
`

const meshConfig = `accessLogFile: /dev/null
trustDomainAliases: [old.example]
pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}
connectTimeout: 5s
protocolDetectionTimeout: 100ms
tcpKeepalive: {time: 120s}
`

// A real Envoy takes every feature, as a waypoint and as a gateway.
func TestEnvoyTakesEveryFeature(t *testing.T) {
	for _, c := range []struct {
		name     string
		proxy    proxy
		clusters []string
	}{
		{
			"waypoint",
			proxy{"waypoint~10.244.2.50~wp-1.shop~shop.svc.cluster.local", "shop", `{"gateway.networking.k8s.io/gateway-name": "wp"}`, "DELTA_GRPC"},
			[]string{
				"inbound-vip|80|http/ring|cart.shop.svc.cluster.local::envoy://connect_originate/10.244.2.1:8080::",
				"inbound-vip|83|tcp|cart.shop.svc.cluster.local::envoy://connect_originate/10.244.2.1:83::",
				"inbound-vip|83|http|cart.shop.svc.cluster.local::envoy://connect_originate/10.244.2.1:83::",
				"inbound-vip|80|http|static.example.com::192.0.2.1:80::",
				"inbound-vip|80|http|api.example.com::default_priority::max_connections",
			},
		},
		{
			"gateway",
			proxy{"router~10.244.2.60~edge-1.shop~shop.svc.cluster.local", "shop", `{"istio": "edge"}`, "DELTA_GRPC"},
			[]string{
				// The service wants its traffic from gateways to come by its waypoint.
				"outbound|80|ring|cart.shop.svc.cluster.local::envoy://connect_originate/10.96.0.51:80",
				"outbound|80||static.example.com::192.0.2.2:80::",
				"outbound|80||api.example.com::default_priority::max_connections",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, other := t.TempDir(), t.TempDir()
			write(t, dir, "mesh.yaml", featureMesh)
			write(t, other, "mesh.yaml", meshConfig)
			addr := startWith(t, dir, func(cfg *Config) { cfg.MeshConfigFile = other + "/mesh.yaml" })
			e := startEnvoy(t, addr.GRPC.String(), c.proxy)
			e.accepted()
			for _, want := range c.clusters {
				e.until("/clusters", want, func(b string) bool { return strings.Contains(b, want) })
			}
			e.accepted()
		})
	}
}
