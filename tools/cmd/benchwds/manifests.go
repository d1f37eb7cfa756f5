package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/internal/pilotbed"
)

// servicesPerNamespace is the same in all layouts: a larger mesh has more namespaces, not larger ones.
const servicesPerNamespace = 50

// podsPerService is how many pods stand behind each service.
const podsPerService = 2

// writeMesh writes n services with their pods, a file per namespace.
func writeMesh(dir string, n int) error {
	for first := 0; first < n; first += servicesPerNamespace {
		var b strings.Builder
		ns := fmt.Sprintf("ns-%d", first/servicesPerNamespace)
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {istio.io/dataplane-mode: ambient}}\n", ns)
		for i := first; i < min(n, first+servicesPerNamespace); i++ {
			vip := netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})
			fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: svc-%d, namespace: %s}
spec:
  clusterIP: %s
  clusterIPs: [%s]
  selector: {app: svc-%d}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
`, i, ns, vip, vip, i)
			for p := range podsPerService {
				id := i*podsPerService + p
				b.WriteString("---\n")
				b.WriteString(pod(ns, fmt.Sprintf("svc-%d-%d", i, p), fmt.Sprintf("svc-%d", i), netip.AddrFrom4([4]byte{10, 1, byte(id >> 8), byte(id)})))
			}
		}
		if err := os.WriteFile(filepath.Join(dir, ns+".yaml"), []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func pod(ns, name, app string, ip netip.Addr) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
  namespace: %s
  uid: %s-%s
  labels: {app: %s}
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
`, name, ns, ns, name, app, app, ip, ip)
}

// movingPod is the pod that changes: a member of the first service, each time at another address, which is also the marker by
// which clients tell a change.
func movingPod(d pilotbed.Dirs) *pilotbed.Mover {
	return pilotbed.NewMover(d, "moving.yaml", func(n int) (marker, manifest string) {
		ip := netip.AddrFrom4([4]byte{10, 99, byte(n >> 8), byte(n)})
		return string(ip.AsSlice()), pod("ns-0", "moving", "svc-0", ip)
	})
}
