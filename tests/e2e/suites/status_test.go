//go:build e2e

package suites

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// conditionText is "STATUS REASON: MESSAGE" of an object's condition.
func conditionText(ctx context.Context, group, resource, ns, name, kind string) (string, error) {
	o, err := cluster.Dynamic.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return fmt.Sprintf("%v %v: %v", m["status"], m["reason"], m["message"]), nil
		}
	}
	return "no condition " + kind, nil
}

var _ = Describe("Admission", func() {
	DescribeTable("refuses what would have no effect or break, naming the field", func(ctx SpecContext, manifest string, parts ...string) {
		err := cluster.Apply(ctx, "default", manifest)
		Expect(err).To(HaveOccurred())
		for _, part := range parts {
			Expect(err.Error()).To(ContainSubstring(part))
		}
	},
		Entry("a port that is none", `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bad}
spec: {hosts: [bad.example.com], ports: [{number: 99999, name: http, protocol: HTTP}], resolution: DNS}
`, "ports[0]"),
		Entry("weights that are not 100 in all and negative", `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad}
spec: {hosts: [bad], http: [{route: [{destination: {host: bad}, weight: -1}, {destination: {host: worse}, weight: 50}]}]}
`, "weight"),
		Entry("a rule of a policy with an unknown condition", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bad}
spec: {rules: [{when: [{key: request.nonsense, values: [a]}]}]}
`, "key", "request.nonsense"),
		Entry("an address block that is none", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bad}
spec: {rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}
`, "ipBlocks[0]", "10.0.0.0/99"),
	)
})
