package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"
	meshapi "istio.io/api/mesh/v1alpha1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/yaml"
)

const askYAML = `
rootNamespace: istio-system
trustDomain: mesh.example
extensionProviders:
- {name: tracing, zipkin: {service: z, port: 1}}
- {name: gone, envoyExtAuthzHttp: {service: gone.example, port: 8000}}
- {name: plain-grpc, envoyExtAuthzGrpc: {service: authz.example, port: 8000}}
- {name: bad-status, envoyExtAuthzHttp: {service: authz.example, port: 8000, statusOnError: "99"}}
- {name: bad-body, envoyExtAuthzHttp: {service: authz.example, port: 8000, includeRequestBodyInCheck: {}}}
- {name: bad-path, envoyExtAuthzHttp: {service: authz.example, port: 8000, pathPrefix: check}}
- {name: bad-header, envoyExtAuthzHttp: {service: authz.example, port: 8000, includeAdditionalHeadersInCheck: {"a b": c}}}
- name: by-http
  envoyExtAuthzHttp:
    service: foo/authz.example
    port: 8000
    timeout: 3s
    pathPrefix: /check
    failOpen: true
    clearRouteCache: true
    statusOnError: "503"
    includeRequestHeadersInCheck: [x-ext-authz, x-user-*, "*-trace"]
    includeAdditionalHeadersInCheck: {x-mesh: "100%"}
    includeRequestBodyInCheck: {maxRequestBytes: 1024, allowPartialMessage: true}
    headersToUpstreamOnAllow: [x-user]
    headersToDownstreamOnDeny: [x-reason, content-type]
    headersToDownstreamOnAllow: [x-cookie]
- name: by-grpc
  envoyExtAuthzGrpc: {service: authz.example, port: 9000, includeRequestBodyInCheck: {maxRequestBytes: 5, packAsBytes: true}}
`

func askMesh() *meshapi.MeshConfig {
	out := &meshapi.MeshConfig{}
	raw, err := yaml.YAMLToJSON([]byte(askYAML))
	if err == nil {
		err = protojson.Unmarshal(raw, out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

// testAuthorizer knows authz.example, which speaks HTTP at port 8000 and gRPC at 9000.
func testAuthorizer(service string, port uint32) (Backend, error) {
	host := service[strings.Index(service, "/")+1:]
	if host != "authz.example" {
		return Backend{}, fmt.Errorf("there is no service %s", host)
	}
	return Backend{Cluster: fmt.Sprintf("outbound|%d||%s", port, host), Host: host, HTTP2: port == 9000}, nil
}

func customPolicy(t *testing.T, name, provider, rules string) *securityv1.AuthorizationPolicy {
	t.Helper()
	p := parse(t, "{action: CUSTOM, provider: {name: "+provider+"}, rules: "+rules+"}")
	p.Name = name
	return p
}

func TestCustomGolden(t *testing.T) {
	in := Input{Mesh: askMesh(), Authorizer: testAuthorizer, ForwardClient: true, Policies: []*securityv1.AuthorizationPolicy{
		customPolicy(t, "one", "by-http", "[{to: [{operation: {paths: [/admin*]}}]}]"),
		customPolicy(t, "two", "by-grpc", "[{from: [{source: {namespaces: [x]}}]}]"),
		customPolicy(t, "three", "nobody", "[{to: [{operation: {methods: [PUT]}}]}]"),
	}}
	got := dump(t, "HTTP filters of a waypoint", http(in)...) + dump(t, "network filters of a waypoint", network(in)...)
	file := filepath.Join("testdata", "custom.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; rewrite it with -update\n%s", file, got)
	}
}

// What a CUSTOM policy would ask is denied when nobody can be asked, and nothing else is.
func TestCustomWithoutAuthorizer(t *testing.T) {
	for _, provider := range []string{"nobody", "tracing", "gone", "plain-grpc"} {
		in := Input{Mesh: askMesh(), Authorizer: testAuthorizer, Policies: []*securityv1.AuthorizationPolicy{customPolicy(t, "p", provider, "[{to: [{operation: {paths: [/x]}}]}]")}}
		filters := HTTPFilters(in)
		if len(filters) != 1 {
			t.Fatalf("%s: %d filters", provider, len(filters))
		}
		rbac := &rbacfilterv3.RBAC{}
		if err := filters[0].GetTypedConfig().UnmarshalTo(rbac); err != nil {
			t.Fatal(err)
		}
		if _, ok := rbac.GetRules().GetPolicies()["ns[default]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action"]; !ok || rbac.GetShadowRules() != nil {
			t.Errorf("%s: %v", provider, rbac)
		}
		if len(NetworkFilters(in)) != 1 {
			t.Errorf("%s: connections are not refused", provider)
		}
	}
}

// Each provider is asked about its own policies only, also if its name begins as another's.
func TestProvidersAreToldApart(t *testing.T) {
	in := Input{Mesh: askMesh(), Authorizer: testAuthorizer, Policies: []*securityv1.AuthorizationPolicy{
		customPolicy(t, "p", "by-http", "[{}]"), customPolicy(t, "q", "by-grpc", "[{}]"),
	}}
	var prefixes []string
	for _, f := range HTTPFilters(in) {
		ask := &extauthzv3.ExtAuthz{}
		if f.GetTypedConfig().UnmarshalTo(ask) == nil {
			prefixes = append(prefixes, ask.GetFilterEnabledMetadata().GetValue().GetStringMatch().GetPrefix())
		}
	}
	if got := strings.Join(prefixes, " "); got != "istio-ext-authz-by-grpc-ns[ istio-ext-authz-by-http-ns[" {
		t.Error(got)
	}
}

func TestCustomServices(t *testing.T) {
	var got []string
	dry := customPolicy(t, "dry", "by-grpc", "[{}]")
	dry.Annotations = map[string]string{annotationDryRun: "true"}
	CustomServices(askMesh(), []*securityv1.AuthorizationPolicy{customPolicy(t, "p", "by-http", "[{}]"), customPolicy(t, "q", "nobody", "[{}]"), dry}, func(service string, port uint32) {
		got = append(got, fmt.Sprint(service, " ", port))
	})
	if fmt.Sprint(got) != "[foo/authz.example 8000]" {
		t.Error(got)
	}
}
