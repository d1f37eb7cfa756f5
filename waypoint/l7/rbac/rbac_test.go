package rbac

import (
	"net/netip"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

func request(method, authority, path string) *exchange.Info {
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Authority, h.Path = httpmsg.HTTP11, method, authority, path
	i := &exchange.Info{}
	i.Begin(h, &exchange.Conn{
		Source: netip.MustParseAddrPort("10.9.9.9:5555"), Destination: netip.MustParseAddrPort("10.1.1.1:8080"), SNI: "sni",
		Authority: "10.1.1.1:8080", Identity: "spiffe://td/ns/a/sa/b",
	})
	i.Remote = netip.MustParseAddrPort("192.0.2.7:0")
	return i
}

// One permission or principal against one request: PUT host.y/a/x/b?q from 10.9.9.9, which says 192.0.2.7 in x-forwarded-for.
func TestMatchers(t *testing.T) {
	const s = `"principals": [{"any": true}], "permissions": [`
	const p = `"permissions": [{"any": true}], "principals": [`
	for _, c := range []struct {
		rule string
		want bool
	}{
		{s + `{"any": true}]`, true},
		{s + `{"any": false}]`, false},
		{s + `{"header": {"name": ":method", "string_match": {"exact": "PUT"}}}]`, true},
		{s + `{"header": {"name": ":authority", "string_match": {"suffix": ".Y", "ignore_case": true}}}]`, true},
		{s + `{"url_path": {"path": {"exact": "/a/x/b"}}}]`, true},
		{s + `{"url_path": {"path": {"exact": "/a/x/b?q"}}}]`, false},
		{s + `{"destination_port": 8080}]`, true},
		{s + `{"destination_port_range": {"start": 8000, "end": 8080}}]`, false},
		{s + `{"destination_port_range": {"start": 8080, "end": 8081}}]`, true},
		{s + `{"destination_ip": {"address_prefix": "10.1.0.0", "prefix_len": 16}}]`, true},
		{s + `{"requested_server_name": {"exact": "sni"}}]`, true},
		{s + `{"not_rule": {"url_path": {"path": {"prefix": "/a"}}}}]`, false},
		{s + `{"and_rules": {"rules": [{"any": true}, {"destination_port": 1}]}}]`, false},
		{s + `{"or_rules": {"rules": [{"destination_port": 1}, {"any": true}]}}]`, true},
		{s + `{"metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"string_match": {"exact": "v"}}}}]`, true},
		{s + `{"metadata": {"filter": "f", "path": [{"key": "k"}, {"key": "deeper"}], "value": {"string_match": {"exact": "v"}}}}]`, false},
		{s + `{"metadata": {"filter": "f", "path": [{"key": "gone"}], "value": {"present_match": true}, "invert": true}}]`, true},
		{s + `{"sourced_metadata": {"metadata_matcher": {"filter": "f", "path": [{"key": "list"}], "value": {"list_match": {"one_of": {"string_match": {"prefix": "b"}}}}}}}]`, true},
		{s + `{"metadata": {"filter": "f", "path": [{"key": "n"}], "value": {"or_match": {"value_matchers": [{"bool_match": true}, {"double_match": {"range": {"start": 5, "end": 6}}}]}}}}]`, true},
		{p + `{"direct_remote_ip": {"address_prefix": "10.9.9.9", "prefix_len": 32}}]`, true},
		{p + `{"remote_ip": {"address_prefix": "10.9.9.9", "prefix_len": 32}}]`, false},
		{p + `{"remote_ip": {"address_prefix": "192.0.2.0", "prefix_len": 24}}]`, true},
		{p + `{"source_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}]`, true},
		{p + `{"filter_state": {"key": "io.istio.peer_principal", "string_match": {"safe_regex": {"regex": "spiffe://[^/]+/ns/a/sa/.+"}}}}]`, true},
		{p + `{"filter_state": {"key": "io.istio.peer_principal", "string_match": {"exact": "spiffe://td/ns/a/sa/bb"}}}]`, false},
		{p + `{"filter_state": {"key": "nope", "string_match": {"prefix": ""}}}]`, false},
		{p + `{"filter_state": {"key": "envoy.filters.listener.original_dst.remote_ip", "address_match": {"ranges": [{"address_prefix": "10.9.0.0", "prefix_len": 16}]}}}]`, true},
		{p + `{"filter_state": {"key": "envoy.filters.listener.original_dst.local_ip", "address_match": {"ranges": [{"address_prefix": "10.9.0.0", "prefix_len": 16}], "invert_match": true}}}]`, true},
		{p + `{"authenticated": {}}]`, false},
		{p + `{"authenticated": {"principal_name": {"prefix": "spiffe"}}}]`, false}, // inside the tunnel there is no TLS
		{p + `{"not_id": {"or_ids": {"ids": [{"any": false}]}}}]`, true},
		{p + `{"and_ids": {"ids": [{"any": true}, {"url_path": {"path": {"prefix": "/b"}}}]}}]`, false},
	} {
		rules := &rbacv3.RBAC{}
		if err := protojson.Unmarshal([]byte(`{"policies": {"p": {`+c.rule+`}}}`), rules); err != nil {
			t.Fatalf("%v in %s", err, c.rule)
		}
		f, err := Compile(&httprbacv3.RBAC{Rules: rules})
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		i := request("PUT", "host.y", "/a/x/b?q")
		i.SetMetadata("f", "k", "v")
		i.SetMetadata("f", "list", []any{"a", "b"})
		i.SetMetadata("f", "n", 5.5)
		if _, got := f.Check(i); got != c.want {
			t.Errorf("%s: %v", c.rule, got)
		}
	}
}

// As Envoy's templates match: * is a segment that is not empty, ** anything, of the characters of a path.
func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		template string
		yes, no  []string
	}{
		{"/a/*/b", []string{"/a/x/b", "/a/x=y/b", "/a/x%20y/b", "/a/x;b/b"}, []string{"/a/x/y/b", "/a//b", "/a/b"}},
		{"/a/**", []string{"/a/", "/a/x", "/a/x/y/b"}, []string{"/a", "/b"}},
		{"/a/{v=*}/c", []string{"/a/x/c"}, []string{"/a/x/c/d"}},
		{"/*/x/**", []string{"/z/x/", "/z/x/1/2"}, []string{"/z/x", "/x/"}},
		{"/a/{v}/c/{w=**}", []string{"/a/x/c/d/e"}, []string{"/a/x/c"}},
	} {
		re, err := templateRegexp(c.template)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range c.yes {
			if !re.MatchString(p) {
				t.Errorf("%s does not match %s", c.template, p)
			}
		}
		for _, p := range c.no {
			if re.MatchString(p) {
				t.Errorf("%s matches %s", c.template, p)
			}
		}
	}
	for _, bad := range []string{"a/b", "/a/{x", "/**/b/*"} {
		if _, err := templateRegexp(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestActions(t *testing.T) {
	parse := func(text string) *Filter {
		p := &httprbacv3.RBAC{}
		if err := protojson.Unmarshal([]byte(text), p); err != nil {
			t.Fatal(err)
		}
		f, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const get = `{"permissions": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}], "principals": [{"any": true}]}`
	for _, c := range []struct {
		config, method, denied string
	}{
		{`{"rules": {"action": "ALLOW", "policies": {"p": ` + get + `}}}`, "GET", ""},
		{`{"rules": {"action": "ALLOW", "policies": {"p": ` + get + `}}}`, "PUT", "none"},
		{`{"rules": {"action": "DENY", "policies": {"z": ` + get + `, "a": ` + get + `}}}`, "GET", "a"},
		{`{"rules": {"action": "DENY", "policies": {"p": ` + get + `}}}`, "PUT", ""},
		{`{"rules": {"action": "LOG", "policies": {"p": ` + get + `}}}`, "GET", ""},
		{`{"rules": {}}`, "GET", "none"},
		{`{}`, "GET", ""},
		{`{"shadow_rules": {"policies": {}}}`, "GET", ""},
	} {
		got, ok := parse(c.config).Check(request(c.method, "h", "/"))
		if got != c.denied || ok != (c.denied == "") {
			t.Errorf("%s %s: %q %v", c.config, c.method, got, ok)
		}
	}
	i := request("GET", "h", "/")
	parse(`{"shadow_rules": {"action": "DENY", "policies": {"p": ` + get + `}}, "shadow_rules_stat_prefix": "dry_"}`).Check(i)
	if md := i.Metadata(metadataKey); md["dry_shadow_engine_result"] != "denied" || md["dry_shadow_effective_policy_id"] != "p" {
		t.Errorf("%v", md)
	}
	if d := Details("ns[a]-policy[b c]\t-rule[0]"); d != "rbac_access_denied_matched_policy[ns[a]-policy[b_c]_-rule[0]]" {
		t.Error(d)
	}
}
