package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/internal/pilotbed"
)

const (
	// servicesPerNamespace is the same in all layouts: a larger mesh has more namespaces, each with its waypoint.
	servicesPerNamespace = 50
	podsPerService       = 2
)

// writeMesh writes n services with pods, subsets and routes, a file per namespace.
func writeMesh(dir string, n int) error {
	for first := 0; first < n; first += servicesPerNamespace {
		ns := namespaceOf(first)
		var b strings.Builder
		fmt.Fprintf(&b, `apiVersion: v1
kind: Namespace
metadata: {name: %s, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: %s}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
status: {addresses: [{type: IPAddress, value: %s}]}
`, ns, ns, netip.AddrFrom4([4]byte{10, 210, byte(first >> 8), byte(first)}))
		for i := first; i < min(n, first+servicesPerNamespace); i++ {
			vip := netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})
			fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: svc-%d, namespace: %s}
spec:
  clusterIP: %s
  selector: {app: svc-%d}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
---
`, i, ns, vip, i)
			if i > 0 {
				b.WriteString(virtualService(i, 50, "static"))
			}
			for p := range podsPerService {
				id := i*podsPerService + p
				b.WriteString("---\n")
				b.WriteString(pod(ns, fmt.Sprintf("svc-%d-%d", i, p), fmt.Sprintf("svc-%d", i), netip.AddrFrom4([4]byte{10, byte(1 + id>>16), byte(id >> 8), byte(id)})))
			}
		}
		if err := os.WriteFile(filepath.Join(dir, ns+".yaml"), []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	rule := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: svc-0, namespace: %s}
spec: {host: svc-0, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
`, namespaceOf(0))
	return os.WriteFile(filepath.Join(dir, "rule.yaml"), []byte(rule), 0o600)
}

func namespaceOf(service int) string { return fmt.Sprintf("ns-%d", service/servicesPerNamespace) }

// virtualService splits a service's requests. The marker is the name of a route.
func virtualService(i, weight int, marker string) string {
	subset := func(name string) string {
		if i > 0 {
			return "" // only the first service has them
		}
		return ", subset: " + name
	}
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: svc-%d, namespace: %s}
spec:
  hosts: [svc-%d]
  http:
  - name: %s
    match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: svc-%d%s}}]
  - route:
    - {destination: {host: svc-%d%s}, weight: %d}
    - {destination: {host: svc-%d%s}, weight: %d}
`, i, namespaceOf(i), i, marker, i, subset("v2"), i, subset("v1"), weight, i, subset("v2"), 100-weight)
}

func pod(ns, name, app string, ip netip.Addr) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
  namespace: %s
  labels: {app: %s, version: v1}
  annotations: {ambient.istio.io/redirection: enabled}
spec:
  nodeName: node-1
  serviceAccountName: %s
  containers: [{name: app, image: app}]
status:
  phase: Running
  podIP: %s
  podIPs: [{ip: %s}]
  conditions: [{type: Ready, status: "True"}]
`, name, ns, app, app, ip, ip)
}

// movers of a directory: the weights of the first service's routes, and a pod of a service without subsets.
func movers(d pilotbed.Dirs) (route, endpoint *pilotbed.Mover) {
	route = pilotbed.NewMover(d, "route.yaml", func(n int) (string, string) {
		marker := fmt.Sprintf("marker-%06d", n)
		return marker, virtualService(0, n%99+1, marker)
	})
	endpoint = pilotbed.NewMover(d, "endpoint.yaml", func(n int) (string, string) {
		ip := netip.AddrFrom4([4]byte{10, 99, byte(n >> 8), byte(n)})
		return ip.String() + ":8080", pod(namespaceOf(1), "moving", "svc-1", ip)
	})
	return route, endpoint
}
