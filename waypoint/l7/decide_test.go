package l7

import (
	"strings"
	"testing"
	"time"
)

// outcome is what became of a request, in one line: where it goes, or the answer with its flags and details.
func (w *world) outcome(t *testing.T, line string, headers ...string) string {
	t.Helper()
	d := w.decide(t, request(line, headers...))
	if d.Reply != nil {
		text, head := w.reply()
		out := text + " " + d.Flags.String() + " " + d.Details
		if l, ok := head.Header.Get("location"); ok {
			out += " " + l
		}
		return out
	}
	return d.RouteName + " " + d.ClusterName + " " + w.req.Head.Path + " " + w.req.Head.Authority
}

type row struct {
	line    string
	headers []string
	want    string
}

func run(t *testing.T, w *world, rows []row) {
	t.Helper()
	for _, r := range rows {
		if got := w.outcome(t, r.line, r.headers...); got != r.want {
			t.Errorf("%s %v\n got %s\nwant %s", r.line, r.headers, got, r.want)
		}
	}
}

func hs(h ...string) []string { return h }

// The first route that matches wins, whatever kind it is of. Each row was answered so by Envoy 1.40.
func TestRouteMatch(t *testing.T) {
	w := newWorld(t, manager("", "", vhost(`
		{'name': 'exact', 'match': {'path': '/exact'}, 'route': {'cluster': 'up'}},
		{'name': 'exactci', 'match': {'path': '/ExactCI', 'case_sensitive': false}, 'route': {'cluster': 'up'}},
		{'name': 'preci', 'match': {'prefix': '/PreCI/', 'case_sensitive': false}, 'route': {'cluster': 'up', 'prefix_rewrite': '/x/'}},
		{'name': 'seg', 'match': {'path_separated_prefix': '/seg'}, 'route': {'cluster': 'up', 'prefix_rewrite': '/new'}},
		{'name': 're', 'match': {'safe_regex': {'regex': '/re/[0-9]+'}}, 'route': {'cluster': 'up', 'regex_rewrite': {'pattern': {'regex': '/re/([0-9]+)'}, 'substitution': '/n\\1/x'}}},
		{'name': 'late', 'match': {'prefix': '/a'}, 'route': {'cluster': 'up2'}},
		{'name': 'never', 'match': {'path': '/abc'}, 'route': {'cluster': 'up'}},
		{'name': 'post', 'match': {'prefix': '/m', 'headers': [{'name': ':method', 'string_match': {'exact': 'POST'}}]}, 'route': {'cluster': 'up'}},
		{'name': 'query', 'match': {'prefix': '/q', 'query_parameters': [{'name': 'a', 'string_match': {'exact': '1'}}, {'name': 'b', 'present_match': true}]}, 'route': {'cluster': 'up'}},
		{'name': 'grpc', 'match': {'prefix': '/g', 'grpc': {}}, 'route': {'cluster': 'up'}},
		{'name': 'some', 'match': {'prefix': '/f', 'runtime_fraction': {'default_value': {'numerator': 0}}}, 'route': {'cluster': 'up'}},
		{'name': 'connect', 'match': {'connect_matcher': {}}, 'route': {'cluster': 'up2', 'upgrade_configs': [{'upgrade_type': 'CONNECT', 'connect_config': {}}]}}`)))
	run(t, w, []row{
		{"GET /exact", nil, "exact up /exact x"},
		{"GET /exact?x=1", nil, "exact up /exact?x=1 x"},
		{"GET /exact/", nil, "404 NR route_not_found"},
		{"GET /EXACTCI", nil, "exactci up /EXACTCI x"},
		{"GET /preci/abc?q", nil, "preci up /x/abc?q x"},
		{"GET /seg", nil, "seg up /new x"},
		{"GET /seg/b?c", nil, "seg up /new/b?c x"},
		{"GET /segx", nil, "404 NR route_not_found"},
		{"GET /re/12?q=/re/1", nil, "re up /n12/x?q=/re/1 x"},
		{"GET /re/12x", nil, "404 NR route_not_found"}, // an expression matches all of the path
		{"GET /abc", nil, "late up2 /abc x"},           // an exact path that comes later does not overtake a prefix
		{"GET /m", nil, "404 NR route_not_found"},
		{"POST /m", nil, "post up /m x"},
		{"GET /q?a=1&b", nil, "query up /q?a=1&b x"},
		{"GET /q?b=2&a=1", nil, "query up /q?b=2&a=1 x"},
		{"GET /q?a=2&a=1&b", nil, "404 NR route_not_found"}, // the first value counts
		{"GET /q?a=%31&b=1", nil, "404 NR route_not_found"}, // nothing is decoded
		{"GET /g", hs("content-type: application/grpc+proto"), "grpc up /g x"},
		{"GET /g", hs("content-type: application/grpc-web"), "404 NR route_not_found"},
		{"GET /f", nil, "404 NR route_not_found"},
		{"CONNECT ", nil, "connect up2  x"},
		{"OPTIONS *", nil, "404 - absolute_path_rejected"},
		{"GET /exact#f", nil, "400 - path_normalization_failed"},
		{"GET /exact", hs("host: "), "exact up /exact "}, // an empty Host is one
	})
	if !w.d.ConnectTCP && w.decide(t, request("CONNECT ")).ConnectTCP != true {
		t.Error("a CONNECT with connect_config is not ended")
	}
}

// Values of a header are compared one by one, except of headers that Envoy keeps in one place. Inversion says nothing about a
// header that is missing.
func TestHeaderMatch(t *testing.T) {
	h := func(name, spec string) string {
		return `{'name': '` + name + `', 'match': {'prefix': '/` + name + `', 'headers': [{'name': 'x-m', ` + spec + `}]}, 'route': {'cluster': 'up'}},`
	}
	w := newWorld(t, manager("", "", vhost(
		h("exact", `'string_match': {'exact': 'abc'}`)+h("join", `'string_match': {'exact': 'abc,def'}`)+h("inv", `'string_match': {'exact': 'abc'}, 'invert_match': true`)+
			h("empty", `'string_match': {'exact': 'abc'}, 'invert_match': true, 'treat_missing_header_as_empty': true`)+
			h("present", `'present_match': true`)+h("absent", `'present_match': false`)+h("range", `'range_match': {'start': '5', 'end': '10'}`)+
			h("regex", `'string_match': {'safe_regex': {'regex': 'a.c'}}`)+h("fold", `'string_match': {'contains': 'BC', 'ignore_case': true}`)+
			`{'name': 'inline', 'match': {'prefix': '/inline', 'headers': [{'name': 'accept', 'string_match': {'exact': 'a,b'}}]}, 'route': {'cluster': 'up'}},`+
			`{'name': 'none', 'match': {'prefix': '/'}, 'direct_response': {'status': 204}}`)))
	for _, c := range []struct {
		path    string
		headers []string
		want    bool
	}{
		{"exact", hs("x-m: abc"), true},
		{"exact", hs("x-m: abcd"), false},
		{"exact", nil, false},
		{"exact", hs("x-m: def", "x-m: abc"), true},
		{"join", hs("x-m: abc", "x-m: def"), false},
		{"join", hs("x-m: abc,def"), true},
		{"inv", nil, false},
		{"inv", hs("x-m: abd"), true},
		{"inv", hs("x-m: abc", "x-m: def"), false},
		{"empty", nil, true},
		{"empty", hs("x-m: abc"), false},
		{"present", hs("x-m: "), true},
		{"present", nil, false},
		{"absent", nil, true},
		{"absent", hs("x-m: 1"), false},
		{"range", hs("x-m: 5"), true},
		{"range", hs("x-m: 10"), false},
		{"range", hs("x-m: 7.5"), false},
		{"range", hs("x-m: 99", "x-m: 6"), true},
		{"regex", hs("x-m: abc"), true},
		{"regex", hs("x-m: abcc"), false},
		{"fold", hs("x-m: aBcd"), true},
		{"inline", hs("accept: a", "accept: b"), true},
		{"inline", hs("accept: a"), false},
	} {
		w.decide(t, request("GET /"+c.path, c.headers...))
		if got := w.d.RouteName == c.path; got != c.want {
			t.Errorf("/%s %v: %v, want %v", c.path, c.headers, got, c.want)
		}
	}
}

// Hosts: exact, then the longest *.suffix, then the longest prefix.*, then *.
func TestVirtualHosts(t *testing.T) {
	v := func(name, domain string) string {
		return `{'name': '` + name + `', 'domains': ['` + domain + `'], 'routes': [{'name': '` + name + `', 'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}]},`
	}
	list := v("exact", "a.example.com") + v("suffix", "*.example.com") + v("longer", "*.b.example.com") + v("prefix", "foo.*") + v("port", "a.example.com:81") + v("any", "*")
	w := newWorld(t, manager("", "", "'virtual_hosts': ["+strings.TrimSuffix(list, ",")+"]"))
	for host, want := range map[string]string{
		"a.example.com": "exact", "A.Example.COM": "exact", "a.example.com:80": "any", "a.example.com:81": "port", "c.example.com": "suffix", "x.b.example.com": "longer",
		".example.com": "any", "example.com": "any", "foo.x": "prefix", "foo.": "any", "foo.example.com": "suffix", "[::1]:80": "any",
	} {
		if w.decide(t, request("GET /", "host: "+host)); w.d.RouteName != want {
			t.Errorf("%s: %s, want %s", host, w.d.RouteName, want)
		}
	}
	if _, err := compileRC(t, `{'name': 'r', 'virtual_hosts': [{'name': 'a', 'domains': ['x', 'X']}]}`); err == nil || !strings.HasPrefix(err.Error(), "virtual_hosts[0].domains[1]: only unique values") {
		t.Errorf("a domain twice: %v", err)
	}
}

func TestVirtualHostIgnoresPort(t *testing.T) {
	w := newWorld(t, manager("", "", `'ignore_port_in_host_matching': true, 'virtual_hosts': [{'name': 'v', 'domains': ['a.b'], 'require_tls': 'ALL',
		'routes': [{'name': 'r', 'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}]}]`))
	run(t, w, []row{
		{"GET /p?q", hs("host: a.b:99"), "301 - direct_response https://a.b:99/p?q"},
		{"GET /p", hs("host: a.b", "x-forwarded-proto: https"), "r up /p a.b"}, // trusted without use_remote_address
		{"GET /p", hs("host: b.b"), "404 NR route_not_found"},
	})
}

func TestRedirectAndDirectResponse(t *testing.T) {
	w := newWorld(t, manager("", "", vhost(`
		{'match': {'prefix': '/1'}, 'redirect': {'host_redirect': 'h.com', 'path_redirect': '/p', 'response_code': 'FOUND'}},
		{'match': {'prefix': '/2'}, 'redirect': {'https_redirect': true, 'port_redirect': 8443}},
		{'match': {'prefix': '/3'}, 'redirect': {'scheme_redirect': 'https', 'prefix_rewrite': '/x', 'strip_query': true, 'response_code': 'PERMANENT_REDIRECT'}},
		{'match': {'prefix': '/4'}, 'redirect': {'regex_rewrite': {'pattern': {'regex': '^/4/(.*)$'}, 'substitution': '/z/\\1'}}},
		{'match': {'prefix': '/5'}, 'redirect': {'path_redirect': '/p?y=1', 'response_code': 'TEMPORARY_REDIRECT'}},
		{'match': {'prefix': '/6'}, 'direct_response': {'status': 418, 'body': {'inline_string': 'tea'}}},
		{'match': {'prefix': '/7'}, 'route': {'cluster': 'gone'}},
		{'match': {'prefix': '/8'}, 'route': {'cluster': 'gone', 'cluster_not_found_response_code': 'NOT_FOUND'}}`)))
	run(t, w, []row{
		{"GET /1?q=1", nil, "302 - direct_response http://h.com/p?q=1"},
		{"GET /2/a?b", hs("host: foo:80"), "301 - direct_response https://foo:8443/2/a?b"},
		{"GET /3/a?b", hs("host: foo:80"), "308 - direct_response https://foo/x/a"},        // :80 is wrong after http → https
		{"GET /3/a?b", hs("host: foo:8080"), "308 - direct_response https://foo:8080/x/a"}, // any other port stays
		{"GET /4/abc/d?e=f", nil, "301 - direct_response http://x/z/abc/d?e=f"},
		{"GET /5?x=1", nil, "307 - direct_response http://x/p?y=1"},
		{"GET /6", nil, "418 tea - direct_response"},
		{"HEAD /6", nil, "418 - direct_response"},
		{"GET /7", nil, "503 NC cluster_not_found"},
		{"GET /8", nil, "404 NC cluster_not_found"},
		{"GET /6", hs("content-type: application/grpc"), "200 - direct_response"},
	})
	_, head := w.reply()
	if head.Header.Value("grpc-status") != "2" || head.Header.Value("grpc-message") != "tea" || head.Header.Value("content-type") != "application/grpc" {
		t.Errorf("gRPC got %v", head.Header.Fields())
	}
}

// Header operations: removed first, values of the state before, overwritten, then added; the weighted cluster's first, then route,
// virtual host, all. A value that comes out empty adds nothing.
func TestHeaderOperations(t *testing.T) {
	w := newWorld(t, manager("", "", `'request_headers_to_add': [{'header': {'key': 'x-lvl', 'value': 'global'}}],
		'response_headers_to_remove': ['x-rm'], 'response_headers_to_add': [{'header': {'key': 'x-rlvl', 'value': 'global'}}],
		'virtual_hosts': [{'name': 'v', 'domains': ['*'], 'include_request_attempt_count': true, 'include_attempt_count_in_response': true,
		'request_headers_to_add': [{'header': {'key': 'x-lvl', 'value': 'vhost'}}], 'routes': [{'name': 'r', 'match': {'prefix': '/'},
		'route': {'prefix_rewrite': '/n/', 'host_rewrite_literal': 'new', 'append_x_forwarded_host': true, 'weighted_clusters': {'clusters': [{'name': 'up2', 'weight': 1,
			'request_headers_to_add': [{'header': {'key': 'x-lvl', 'value': 'weight'}}], 'response_headers_to_add': [{'header': {'key': 'x-rlvl', 'value': 'weight'}}]}]}},
		'request_headers_to_remove': ['x-del', 'x-app'],
		'request_headers_to_add': [{'header': {'key': 'x-lvl', 'value': 'route'}}, {'header': {'key': 'x-app', 'value': '1'}},
			{'header': {'key': 'x-over', 'value': '2'}, 'append_action': 'OVERWRITE_IF_EXISTS_OR_ADD'}, {'header': {'key': 'x-abs', 'value': '3'}, 'append_action': 'ADD_IF_ABSENT'},
			{'header': {'key': 'x-has', 'value': '4'}, 'append_action': 'OVERWRITE_IF_EXISTS'}, {'header': {'key': 'x-no', 'value': '5'}, 'append_action': 'OVERWRITE_IF_EXISTS'},
			{'header': {'key': 'x-empty', 'value': '%REQ(x-none)%'}}, {'header': {'key': 'x-keep', 'value': '%REQ(x-none)%'}, 'keep_empty_value': true},
			{'header': {'key': 'x-path', 'value': '%REQ(:PATH)%|%REQ(x-none?:METHOD):2%|%%|%ROUTE_NAME%|%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}],
		'response_headers_to_add': [{'header': {'key': 'x-code', 'value': '%RESPONSE_CODE% %REQ(x-foo)%'}}]}]}]`))
	w.decide(t, request("GET /a?b", "x-del: 1", "x-app: 0", "x-over: 0", "x-over: 1", "x-abs: 0", "x-has: 0", "x-foo: f"))
	want := map[string]string{
		"x-lvl": "weight,route,vhost,global", "x-app": "1", "x-over": "2", "x-abs": "0", "x-has": "4", "x-keep": "", "x-path": "/a?b|GE|%|r|10.9.9.9",
		"x-envoy-original-path": "/a?b", "x-envoy-original-host": "x", "x-forwarded-host": "x", "x-envoy-attempt-count": "1", "x-forwarded-proto": "http",
		"x-envoy-expected-rq-timeout-ms": "15000", "x-foo": "f",
	}
	for k, v := range want {
		if got, ok := w.req.Head.Header.Joined(k); !ok || got != v {
			t.Errorf("request %s: %q, want %q", k, got, v)
		}
	}
	if n := w.req.Head.Header.Len(); n != len(want)+3+1 { // three more x-lvl, x-request-id
		t.Errorf("%d headers: %v", n, w.req.Head.Header.Fields())
	}
	if w.req.Head.Path != "/n/a?b" || w.req.Head.Authority != "new" || len(w.req.ID) != 36 || w.req.ID[14] != '4' {
		t.Errorf("%s %s %s", w.req.Head.Path, w.req.Head.Authority, w.req.ID)
	}
	resp := request("", "x-rm: 1", "server: up")
	resp.Status = 201
	w.d.ApplyResponse(&w.req, resp, &ResponseInfo{Upstream: true, ServiceTime: 7 * time.Millisecond, Attempts: 2, Now: w.now})
	for k, v := range map[string]string{
		"x-rlvl": "weight,global", "x-code": "201 f", "server": "istio-envoy", "x-envoy-upstream-service-time": "7", "x-envoy-attempt-count": "2",
		"date": "Fri, 02 Jan 2026 03:04:05 GMT", "x-rm": "",
	} {
		if got, _ := resp.Header.Joined(k); got != v {
			t.Errorf("response %s: %q, want %q", k, got, v)
		}
	}
}

// 90/10 is 90/10.
func TestWeightedClusters(t *testing.T) {
	w := newWorld(t, manager("", "", vhost(`{'match': {'prefix': '/'}, 'route': {'weighted_clusters': {'clusters': [{'name': 'up', 'weight': 90}, {'name': 'up2', 'weight': 10}]}}}`)))
	n := 0
	for range 10_000 {
		if w.decide(t, request("GET /")).ClusterName == "up2" {
			n++
		}
	}
	if n < 900 || n > 1100 {
		t.Errorf("up2 got %d of 10000", n)
	}
}

// Timeouts, as a client that may say so, the route and gRPC set them.
func TestTimeouts(t *testing.T) {
	opts := `'use_remote_address': true, 'internal_address_config': {'cidr_ranges': [{'address_prefix': '10.0.0.0', 'prefix_len': 8}]}`
	w := newWorld(t, manager(opts, "", vhost(`
		{'match': {'prefix': '/a'}, 'route': {'cluster': 'up', 'timeout': '3s', 'retry_policy': {'retry_on': '5xx', 'num_retries': 2, 'per_try_timeout': '1s'}}},
		{'match': {'prefix': '/b'}, 'route': {'cluster': 'up', 'timeout': '3s', 'retry_policy': {'retry_on': '5xx', 'per_try_timeout': '5s'}}},
		{'match': {'prefix': '/c'}, 'route': {'cluster': 'up', 'timeout': '0s', 'max_grpc_timeout': '5s'}},
		{'match': {'prefix': '/d'}, 'route': {'cluster': 'up', 'max_stream_duration': {'grpc_timeout_header_max': '2s'}}},
		{'match': {'prefix': '/'}, 'route': {'cluster': 'up', 'idle_timeout': '7s'}}`)))
	const s, ms = time.Second, time.Millisecond
	grpc := "content-type: application/grpc"
	for _, c := range []struct {
		path                   string
		headers                []string
		timeout, try, duration time.Duration
		expected, grpcTimeout  string
	}{
		{"/a", nil, 3 * s, s, 0, "1000", ""},
		{"/b", nil, 3 * s, 0, 0, "3000", ""}, // a try longer than the whole is no limit
		{"/x", nil, 15 * s, 0, 0, "15000", ""},
		{"/x", hs("x-envoy-upstream-rq-timeout-ms: 500", "x-envoy-upstream-rq-per-try-timeout-ms: 100"), 500 * ms, 100 * ms, 0, "100", ""},
		{"/x", hs("x-envoy-upstream-rq-timeout-ms: 0"), 0, 0, 0, "", ""},
		{"/c", nil, 0, 0, 0, "", ""},
		{"/c", hs(grpc, "grpc-timeout: 10S"), 5 * s, 0, 0, "5000", "5000m"},
		{"/c", hs(grpc, "grpc-timeout: 100m"), 100 * ms, 0, 0, "100", "100m"},
		{"/c", hs(grpc), 5 * s, 0, 0, "5000", "5000m"},
		{"/d", hs(grpc, "grpc-timeout: 5S"), 0, 0, 2 * s, "", "2000m"},
	} {
		d := w.decide(t, request("GET "+c.path, c.headers...))
		h := &w.req.Head.Header
		if d.Timeout != c.timeout || d.PerTry != c.try || d.MaxDuration != c.duration || h.Value("x-envoy-expected-rq-timeout-ms") != c.expected || h.Value("grpc-timeout") != c.grpcTimeout {
			t.Errorf("%s %v: %v %v %v %q %q", c.path, c.headers, d.Timeout, d.PerTry, d.MaxDuration, h.Value("x-envoy-expected-rq-timeout-ms"), h.Value("grpc-timeout"))
		}
		if _, left := h.Get("x-envoy-upstream-rq-timeout-ms"); left {
			t.Errorf("%s: x-envoy-upstream-rq-timeout-ms goes on", c.path)
		}
	}
	for _, c := range []struct {
		path    string
		elapsed time.Duration
		left    string
	}{{"/b", 9 * ms, "2991"}, {"/b", 4 * s, "1"}, {"/a", s, "1000"}, {"/a", 2500 * ms, "500"}} {
		w.decide(t, request("GET "+c.path)).TellTimeout(&w.req, c.elapsed)
		if got := w.req.Head.Header.Value("x-envoy-expected-rq-timeout-ms"); got != c.left {
			t.Errorf("%s after %v: %q is left, want %q", c.path, c.elapsed, got, c.left)
		}
	}
	if w.decide(t, request("GET /x")); w.d.IdleTimeout != 7*s {
		t.Errorf("idle %v", w.d.IdleTimeout)
	}
	// From outside the same headers say nothing.
	w.conn.Source = w.conn.Destination
	w.decide(t, request("GET /x", "x-forwarded-for: 1.2.3.4", "x-envoy-upstream-rq-timeout-ms: 500", "x-envoy-retry-on: 5xx"))
	if w.d.Timeout != 15*s || w.d.Retry != nil || w.req.Head.Header.Value("x-envoy-upstream-rq-timeout-ms") != "" {
		t.Errorf("a client from outside set %v %v", w.d.Timeout, w.d.Retry)
	}
}

// Forwarding headers by use_remote_address and trusted hops.
func TestForwarding(t *testing.T) {
	route := vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)
	for _, c := range []struct {
		opts, xff, wantXFF, remote, external, proto string
	}{
		{"'use_remote_address': false", "", "", "10.9.9.9:5555", "", "https"},
		{"'use_remote_address': false", "1.1.1.1, 2.2.2.2", "1.1.1.1, 2.2.2.2", "2.2.2.2:0", "", "https"},
		{"'use_remote_address': false", "rubbish", "rubbish", "10.9.9.9:5555", "", "https"},
		{"'use_remote_address': true", "1.1.1.1", "1.1.1.1,10.9.9.9", "10.9.9.9:5555", "10.9.9.9", "http"},
		{"'use_remote_address': true, 'xff_num_trusted_hops': 1", "1.1.1.1,2.2.2.2", "1.1.1.1,2.2.2.2,10.9.9.9", "2.2.2.2:0", "2.2.2.2", "https"},
		{"'use_remote_address': true, 'skip_xff_append': true", "1.1.1.1", "1.1.1.1", "10.9.9.9:5555", "10.9.9.9", "http"},
	} {
		w := newWorld(t, manager(c.opts, "", route))
		head := request("GET /", "x-forwarded-proto: https", "x-request-id: mine", "x-forwarded-client-cert: By=me", "x-envoy-internal: true", "te: gzip, trailers")
		if c.xff != "" {
			head.Header.Add("x-forwarded-for", c.xff)
		}
		w.decide(t, head)
		h := &head.Header
		if h.Value("x-forwarded-for") != c.wantXFF || w.req.Remote.String() != c.remote || h.Value("x-envoy-external-address") != c.external || h.Value("x-forwarded-proto") != c.proto || head.Scheme != c.proto {
			t.Errorf("%s: %v, client %v", c.opts, h.Fields(), w.req.Remote)
		}
		if edge := c.external != ""; (w.req.ID == "mine") == edge { // at the edge an id from outside is not taken
			t.Errorf("%s: id %s", c.opts, w.req.ID)
		}
		if h.Value("x-forwarded-client-cert") != "" || h.Value("x-envoy-internal") != "" || h.Value("te") != "trailers" {
			t.Errorf("%s: %v", c.opts, h.Fields())
		}
	}
}

// Upgrades are refused unless allowed; a route has the last word.
func TestUpgrades(t *testing.T) {
	w := newWorld(t, manager("'upgrade_configs': [{'upgrade_type': 'websocket'}]", "", vhost(`
		{'name': 'no', 'match': {'prefix': '/no'}, 'route': {'cluster': 'up', 'upgrade_configs': [{'upgrade_type': 'WebSocket', 'enabled': false}]}},
		{'name': 'yes', 'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
	run(t, w, []row{
		{"GET /", hs("upgrade: WebSocket"), "yes up / x"},
		{"GET /no", hs("upgrade: websocket"), "403 - upgrade_failed"},
		{"GET /", hs("upgrade: other"), "403 - upgrade_failed"},
		{"CONNECT ", nil, "404 NR route_not_found"}, // no route takes it
	})
	w.decide(t, request("GET /", "upgrade: websocket"))
	resp := request("")
	resp.Status = 101
	w.d.ApplyResponse(&w.req, resp, &ResponseInfo{Now: w.now})
	if v, ok := resp.Header.Get("x-envoy-upstream-service-time"); ok {
		t.Errorf("an upgrade took %s ms", v)
	}
}

func TestMirrors(t *testing.T) {
	w := newWorld(t, manager("", "", vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up', 'request_mirror_policies': [{'cluster': 'up2'},
		{'cluster': 'gone', 'runtime_fraction': {'default_value': {'numerator': 50}}}, {'cluster': 'up', 'disable_shadow_host_suffix_append': true, 'runtime_fraction': {'default_value': {'numerator': 0}}}]}}`)))
	second := 0
	for range 1000 {
		d := w.decide(t, request("GET /", "host: h:80"))
		if len(d.Mirrors) == 0 || d.Mirrors[0].ClusterName != "up2" || d.Mirrors[0].Endpoints == nil || d.Mirrors[0].Authority != "h-shadow:80" {
			t.Fatalf("%+v", d.Mirrors)
		}
		second += len(d.Mirrors) - 1
	}
	if second < 400 || second > 600 {
		t.Errorf("half of the requests: %d of 1000", second)
	}
	w.decide(t, request("GET /", "host: h"))
	if a := w.d.Mirrors[0].Authority; a != "h-shadow" {
		t.Error(a)
	}
}

func TestFlags(t *testing.T) {
	for f, want := range map[Flags]string{0: "-", FlagUpstreamRetryLimit | FlagUpstreamConnectionFailure: "URX,UF", FlagDelayInjected | FlagFaultInjected: "DI,FI", FlagNoCluster: "NC"} {
		if f.String() != want {
			t.Errorf("%d: %s, want %s", f, f, want)
		}
	}
}
