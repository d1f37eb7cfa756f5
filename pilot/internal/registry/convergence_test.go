package registry

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// manyObjects is a mesh in which each object has something to do with others.
func manyObjects() []string {
	all := bookshop() + `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: wp}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: static, namespace: other}
spec: {hosts: [static.example.com], addresses: [10.97.0.1], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 192.0.2.1}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: shop}
spec: {hosts: [ratings], http: [{match: [{uri: {prefix: /api}}], route: [{destination: {host: api.example.com}}]}, {match: [{uri: {prefix: /s}}], route: [{destination: {host: static.example.com}}]}, {route: [{destination: {host: reviews.other.svc.cluster.local}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: wild, namespace: istio-system}
spec: {host: "*.example.com", trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: more, namespace: shop}
spec: {host: reviews.shop.svc.cluster.local, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}, subsets: [{name: v3, labels: {version: v3}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewers, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: reviews}], rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: istio-system}
spec: {clusterIP: 10.96.5.5, selector: {istio: edge}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: plain, namespace: shop}
spec: {parentRefs: [{kind: Service, group: "", name: plain}], rules: [{backendRefs: [{name: ratings, port: 9080}]}]}
---
`
	return slices.DeleteFunc(strings.Split(all, "---\n"), func(s string) bool { return strings.TrimSpace(s) == "" })
}

// However a state came about, what is published adds up to what is published of that state at once.
func TestRandomChangesConverge(t *testing.T) {
	scopes := []string{shopScope, otherScope, "router/istio-system/istio=edge", "grpc/shop"}
	objects := manyObjects()
	final := newWorld(t, objects...)
	for _, s := range scopes {
		final.r.Scopes().Open(s)
		if len(final.has[s]) < 6 {
			t.Errorf("%s has only %v", s, final.names(s))
		}
	}
	for seed := range uint64(15) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		for _, s := range scopes {
			w.r.Scopes().Open(s)
		}
		shuffled := slices.Clone(objects)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i, o := range shuffled {
			w.apply(o)
			if back := rnd.IntN(i + 1); rnd.IntN(2) == 0 && !strings.Contains(shuffled[back], "istio-waypoint") {
				w.remove(shuffled[back])
				w.apply(shuffled[back])
			}
		}
		for _, s := range scopes {
			if !maps.Equal(w.has[s], final.has[s]) {
				for name, content := range final.has[s] {
					if w.has[s][name] != content {
						t.Errorf("seed %d: %s: %s differs", seed, s, name)
					}
				}
				for name := range w.has[s] {
					if _, ok := final.has[s][name]; !ok {
						t.Errorf("seed %d: %s: %s should be gone", seed, s, name)
					}
				}
			}
		}
		if t.Failed() {
			return
		}
	}
}
