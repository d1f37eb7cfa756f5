//go:build envtest

package policyapi_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// TestAPIServerTakesAndRefuses: the definition is one that an API server takes, and it refuses by itself what the webhook would refuse.
func TestAPIServerTakesAndRefuses(t *testing.T) {
	s := kubetest.New(t, func(c *apiserver.Config) { c.CRDs = []string{"../../../operator/crds/isthmus.yaml"} })
	client, err := dynamic.NewForConfig(s.REST())
	if err != nil {
		t.Fatal(err)
	}
	policies := client.Resource(schema.GroupVersionResource{Group: policyapi.Group, Version: policyapi.Version, Resource: "ratelimitpolicies"}).Namespace("default")
	const service = "targetRefs: [{kind: Service, name: a}]"
	for _, c := range []struct{ name, spec, want string }{
		{"whole", "{" + service + ", limits: [{name: x, requests: 5, per: Second, by: [{type: Header, name: x-user}], overrides: [{values: [a], requests: 1, per: Day}]}, {requests: 1, per: Day, fairShare: [{type: Identity}]}], response: {status: 503, headers: [{name: a, value: b}]}}", ""},
		{"routes", "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a, sectionName: b}], limits: [{requests: 5, per: Second}]}", ""},
		{"empty", "{}", "spec.limits"},
		{"a pod", "{targetRefs: [{kind: Pod, name: a}], limits: [{requests: 5, per: Second}]}", "spec.targetRefs[0].kind"},
		{"a wrong group", "{targetRefs: [{kind: Gateway, name: a}], limits: [{requests: 5, per: Second}]}", "a target is a Service of the core group"},
		{"a section of a service", "{targetRefs: [{kind: Service, name: a, sectionName: b}], limits: [{requests: 5, per: Second}]}", "sectionName names a rule"},
		{"nothing", "{" + service + ", limits: [{requests: 0, per: Second}]}", "spec.limits[0].requests"},
		{"a unit", "{" + service + ", limits: [{requests: 1, per: Week}]}", "spec.limits[0].per"},
		{"a key without name", "{" + service + ", limits: [{requests: 1, per: Day, by: [{type: Header}]}]}", "name is required for the types Header and Claim"},
		{"both", "{" + service + ", limits: [{requests: 1, per: Day, by: [{type: Path}], fairShare: [{type: Path}]}]}", "fairShare cannot be combined with by"},
		{"values", "{" + service + ", limits: [{requests: 1, per: Day, by: [{type: Path}], overrides: [{values: [a, b], requests: 1, per: Day}]}]}", "an override has one value for each key of by"},
		{"names", "{" + service + ", limits: [{name: a, requests: 1, per: Day}, {name: a, requests: 1, per: Day}]}", "names of limits are used once"},
		{"a status", "{" + service + ", limits: [{requests: 1, per: Day}], response: {status: 200}}", "spec.response.status"},
	} {
		o := &unstructured.Unstructured{}
		text := "apiVersion: policy.isthmus.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {generateName: p-, namespace: default}\nspec: " + c.spec
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			t.Fatal(err)
		}
		_, err := policies.Create(t.Context(), o, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
