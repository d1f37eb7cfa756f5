package main

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/tools/internal/objects"
)

// markers are objects of several kinds that are changed at the end of each step: who has them has what was before, of these kinds at
// least.
const markers = `
step: markers
---
apiVersion: v1
kind: Pod
metadata: {name: marker, namespace: marker, labels: {service.istio.io/canonical-revision: "%[1]d"}}
spec: {serviceAccountName: marker}
status: {podIPs: [{ip: 10.255.255.255}]}
---
apiVersion: v1
kind: Service
metadata: {name: marker, namespace: marker}
spec: {clusterIP: None, ports: [{port: %[1]d}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: marker, namespace: marker}
spec: {hosts: [marker.example.com], addresses: [192.0.2.255], resolution: STATIC, ports: [{number: %[1]d, name: tcp, protocol: TCP}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: marker, namespace: marker}
spec: {rules: [{to: [{operation: {ports: ["%[1]d"]}}]}]}
`

// mark applies the markers with a number, which is a port.
func mark(ctx context.Context, c *objects.Cluster, number uint32) error {
	s, err := parseScenario("markers", fmt.Appendf(nil, markers, number))
	if err != nil {
		return err
	}
	return doAll(ctx, c, s.steps[0].actions)
}

// marked reports whether all markers have the number.
func marked(resources map[string]proto.Message, number uint32) bool {
	port := func(name string) uint32 {
		a, _ := resources["address/marker/"+name].(*workload.Address)
		for _, p := range a.GetService().GetPorts() {
			return p.GetServicePort()
		}
		return 0
	}
	pod, _ := resources["address/Kubernetes//Pod/marker/marker"].(*workload.Address)
	policy, _ := resources["policy/marker/marker"].(*security.Authorization)
	return pod.GetWorkload().GetCanonicalRevision() == strconv.Itoa(int(number)) && port("marker.marker.svc.cluster.local") == number &&
		port("marker.example.com") == number && policyPort(policy) == number
}

func policyPort(p *security.Authorization) uint32 {
	for _, r := range p.GetRules() {
		for _, c := range r.GetClauses() {
			for _, m := range c.GetMatches() {
				for _, port := range m.GetDestinationPorts() {
					return port
				}
			}
		}
	}
	return 0
}
