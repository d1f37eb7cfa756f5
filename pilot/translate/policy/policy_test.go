package policy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshapi "istio.io/api/mesh/v1alpha1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// load reads a file of objects.
func load(t testing.TB, data []byte) (aps []*securityv1.AuthorizationPolicy, ras []*securityv1.RequestAuthentication) {
	t.Helper()
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case "AuthorizationPolicy":
			p := &securityv1.AuthorizationPolicy{}
			if err := yaml.Unmarshal(doc, p); err != nil {
				t.Fatal(err)
			}
			aps = append(aps, p)
		case "RequestAuthentication":
			p := &securityv1.RequestAuthentication{}
			if err := yaml.Unmarshal(doc, p); err != nil {
				t.Fatal(err)
			}
			ras = append(ras, p)
		default:
			t.Fatalf("unexpected kind %q", kind.Kind)
		}
	}
	return aps, ras
}

func parse(t testing.TB, text string) *securityv1.AuthorizationPolicy {
	t.Helper()
	p := &securityv1.AuthorizationPolicy{}
	if err := yaml.Unmarshal([]byte("metadata: {name: p, namespace: default}\nspec: "+text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// validate checks a message and what is packed in it by the rules of its proto file.
func validate(t testing.TB, m proto.Message) {
	t.Helper()
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Errorf("%T is not valid: %v", m, err)
		}
	}
	switch m := m.(type) {
	case *hcmv3.HttpFilter:
		inner, err := m.GetTypedConfig().UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		validate(t, inner)
	case *listenerv3.Filter:
		inner, err := m.GetTypedConfig().UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		validate(t, inner)
	}
}

func dump(t testing.TB, title string, ms ...proto.Message) string {
	t.Helper()
	out := "# " + title + "\n"
	for _, m := range ms {
		validate(t, m)
		raw, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.JSONToYAML(raw)
		if err != nil {
			t.Fatal(err)
		}
		out += "---\n" + string(text)
	}
	return out
}

func http(in Input) []proto.Message {
	var out []proto.Message
	for _, f := range HTTPFilters(in) {
		out = append(out, f)
	}
	return out
}

func network(in Input) []proto.Message {
	var out []proto.Message
	for _, f := range NetworkFilters(in) {
		out = append(out, f)
	}
	return out
}

func testMesh() *meshapi.MeshConfig {
	return &meshapi.MeshConfig{TrustDomain: "mesh.example", TrustDomainAliases: []string{"old.example"}, RootNamespace: "istio-system"}
}

func testJWKS(source string) (string, bool) {
	if source == "https://a.example/keys" {
		return `{"keys":[{"kid":"fetched","kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},{"kid":"short","kty":"RSA","n":"AQAB","e":"AQAB"}]}`, true
	}
	return "", false
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data: ", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			aps, ras := load(t, data)
			in := Input{Mesh: testMesh(), Policies: aps, RequestAuthentications: ras, JWKS: testJWKS}
			got := dump(t, "HTTP filters of a waypoint", http(in)...)
			got += dump(t, "network filters of a waypoint", network(in)...)
			in.Proxy = Gateway
			got += dump(t, "HTTP filters of a gateway", http(in)...)
			for _, p := range aps {
				if c, ok := contentCondition(in, p); !ok {
					got += fmt.Sprintf("# %s: %s: %s\n", p.Name, c.Reason, c.Message)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (rewrite with -update):\n%s", golden, got)
			}
		})
	}
}

func TestEqualInputGivesEqualBytes(t *testing.T) {
	data, err := os.ReadFile("testdata/requests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	aps, ras := load(t, data)
	in := Input{Mesh: testMesh(), Policies: aps, RequestAuthentications: ras, JWKS: testJWKS}
	first := http(in)
	ras[0], ras[1] = ras[1], ras[0]
	for i, f := range http(in) {
		if !proto.Equal(f, first[i]) {
			t.Errorf("filter %d depends on the order of objects", i)
		}
	}
}

func FuzzAuthorizationPolicy(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, doc := range strings.Split(string(data), "\n---\n") {
			f.Add(doc)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := &securityv1.AuthorizationPolicy{}
		if err := yaml.Unmarshal([]byte(text), p); err != nil {
			return
		}
		if _, err := proto.Marshal(&p.Spec); err != nil {
			return // not UTF-8: never comes out of an API server
		}
		for _, proxy := range []Proxy{Waypoint, Gateway} {
			in := Input{Mesh: testMesh(), Proxy: proxy, Policies: []*securityv1.AuthorizationPolicy{p}}
			for _, m := range append(http(in), network(in)...) {
				validate(t, m)
			}
		}
		AuthorizationPolicyConditions(Input{Mesh: testMesh()}, p, nowhere{})
	})
}

type nowhere struct{}

func (nowhere) Find(string, string, string) (bool, string) { return false, "" }
