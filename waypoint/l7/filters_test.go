package l7

import (
	"testing"
	"time"
)

const (
	faultAny = "{'name': 'envoy.filters.http.fault', 'typed_config': {'@type': '" + typeURL + "extensions.filters.http.fault.v3.HTTPFault'}}"
	corsAny  = "{'name': 'envoy.filters.http.cors', 'typed_config': {'@type': '" + typeURL + "extensions.filters.http.cors.v3.Cors'}}"
)

func perRoute(name, kind, config string) string {
	return "'typed_per_filter_config': {'" + name + "': {'@type': '" + typeURL + kind + "'" + config + "}}"
}

func perFault(config string) string {
	return perRoute("envoy.filters.http.fault", "extensions.filters.http.fault.v3.HTTPFault", ", "+config)
}

// A fault delays, then aborts; gRPC's status for gRPC, and 200 for one that is not, as Envoy answers.
func TestFault(t *testing.T) {
	w := newWorld(t, manager("", faultAny, vhost(`
		{'match': {'prefix': '/both'}, 'route': {'cluster': 'up'}, `+perFault(`'delay': {'fixed_delay': '7s', 'percentage': {'numerator': 100}}, 'abort': {'http_status': 555, 'percentage': {'numerator': 100}}`)+`},
		{'match': {'prefix': '/grpc'}, 'route': {'cluster': 'up'}, `+perFault(`'abort': {'grpc_status': 14, 'percentage': {'numerator': 100}}`)+`},
		{'match': {'prefix': '/never'}, 'route': {'cluster': 'up'}, `+perFault(`'abort': {'http_status': 500, 'percentage': {'numerator': 0}}`)+`},
		{'match': {'prefix': '/half'}, 'route': {'cluster': 'up'}, `+perFault(`'delay': {'fixed_delay': '1s', 'percentage': {'numerator': 500000, 'denominator': 'MILLION'}}`)+`},
		{'match': {'prefix': '/user'}, 'route': {'cluster': 'up'}, `+perFault(`'abort': {'http_status': 500, 'percentage': {'numerator': 100}}, 'headers': [{'name': 'end-user', 'string_match': {'exact': 'jason'}}]`)+`},
		{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
	run(t, w, []row{
		{"GET /both", nil, "555 fault filter abort DI,FI fault_filter_abort"},
		{"GET /grpc", nil, "200 fault filter abort FI fault_filter_abort"},
		{"GET /never", nil, " up /never x"},
		{"GET /user", nil, " up /user x"},
		{"GET /user", hs("end-user: jason"), "500 fault filter abort FI fault_filter_abort"},
		{"GET /both", nil, "555 fault filter abort DI,FI fault_filter_abort"},
	})
	if w.d.Delay != 7*time.Second {
		t.Errorf("delay %v", w.d.Delay)
	}
	n := 0
	for range 1000 {
		if d := w.decide(t, request("GET /half")); d.Delay != 0 {
			n++
		}
	}
	if n < 400 || n > 600 {
		t.Errorf("half of the requests: %d of 1000", n)
	}
	w.decide(t, request("GET /grpc", "content-type: application/grpc"))
	if _, h := w.reply(); h.Status != 200 || h.Header.Value("grpc-status") != "14" || h.Header.Value("grpc-message") != "fault filter abort" {
		t.Errorf("%v", h.Header.Fields())
	}
}

func TestCORS(t *testing.T) {
	policy := func(config string) string {
		return perRoute("envoy.filters.http.cors", "extensions.filters.http.cors.v3.CorsPolicy", ", "+config)
	}
	w := newWorld(t, manager("", corsAny, vhost(`
		{'match': {'prefix': '/a'}, 'route': {'cluster': 'up'}, `+policy(`'allow_origin_string_match': [{'exact': 'http://o'}], 'allow_methods': 'GET,POST', 'allow_headers': 'x-a', 'expose_headers': 'x-e', 'max_age': '24', 'allow_credentials': true`)+`},
		{'match': {'prefix': '/every'}, 'route': {'cluster': 'up'}, `+policy(`'allow_origin_string_match': [{'exact': '*'}]`)+`},
		{'match': {'prefix': '/strict'}, 'route': {'cluster': 'up'}, `+policy(`'allow_origin_string_match': [{'exact': 'http://o'}], 'forward_not_matching_preflights': false`)+`},
		{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
	const acrm = "access-control-request-method: GET"
	run(t, w, []row{
		{"OPTIONS /a", hs("origin: http://o", acrm), "200 - cors_response"},
		{"OPTIONS /a", hs("origin: http://p", acrm), " up /a x"}, // upstream may know better
		{"OPTIONS /a", hs("origin: http://o"), " up /a x"},       // no preflight
		{"OPTIONS /strict", hs("origin: http://p", acrm), "200 - cors_response"},
		{"GET /strict", hs("origin: http://p"), " up /strict x"},
		{"OPTIONS /none", hs("origin: http://p", acrm), " up /none x"},
	})
	w.decide(t, request("OPTIONS /a", "origin: http://o", acrm))
	_, h := w.reply()
	for k, v := range map[string]string{
		"access-control-allow-origin": "http://o", "access-control-allow-methods": "GET,POST", "access-control-allow-headers": "x-a",
		"access-control-max-age": "24", "access-control-allow-credentials": "true", "access-control-expose-headers": "x-e",
	} {
		if h.Header.Value(k) != v {
			t.Errorf("preflight: %s is %q, want %q", k, h.Header.Value(k), v)
		}
	}
	w.decide(t, request("GET /every", "origin: http://any"))
	resp := request("")
	resp.Status = 200
	w.d.ApplyResponse(&w.req, resp, &ResponseInfo{Now: w.now})
	if v := resp.Header.Value("access-control-allow-origin"); v != "http://any" {
		t.Errorf("allow-origin %q", v)
	}
}

// A denial comes before the answer of a route, has the route's header operations, and its body is Envoy's.
func TestRBACFilter(t *testing.T) {
	deny := `{'name': 'envoy.filters.http.rbac', 'typed_config': {'@type': '` + typeURL + `extensions.filters.http.rbac.v3.RBAC', 'rules': {'action': 'DENY', 'policies': {
		'ns[default]-policy[no admin]-rule[0]': {'permissions': [{'url_path': {'path': {'prefix': '/admin'}}}], 'principals': [{'any': true}]}}}}}`
	w := newWorld(t, manager("'normalize_path': true", deny, vhost(`
		{'match': {'prefix': '/admin/off'}, 'route': {'cluster': 'up'}, `+perRoute("envoy.filters.http.rbac", "extensions.filters.http.rbac.v3.RBACPerRoute", "")+`},
		{'match': {'prefix': '/admin/disabled'}, 'route': {'cluster': 'up'}, `+perRoute("envoy.filters.http.rbac", "config.route.v3.FilterConfig", ", 'disabled': true")+`},
		{'match': {'prefix': '/admin/direct'}, 'direct_response': {'status': 200}, 'response_headers_to_add': [{'header': {'key': 'x-r', 'value': '1'}}]},
		{'match': {'prefix': '/admin'}, 'route': {'cluster': 'up'}, 'response_headers_to_add': [{'header': {'key': 'x-r', 'value': '1'}}]}`)))
	const denied = "403 RBAC: access denied - rbac_access_denied_matched_policy[ns[default]-policy[no_admin]-rule[0]]"
	run(t, w, []row{
		{"GET /admin", nil, denied},
		{"GET /%61dmin", nil, denied},
		{"GET /x/../admin?q", nil, denied},
		{`GET /x\..\admin`, nil, denied},
		{"GET /admin/off", nil, " up /admin/off x"},
		{"GET /admin/disabled", nil, " up /admin/disabled x"},
		{"GET /other", nil, "404 NR route_not_found"},
		{"GET /admin", nil, denied},
	})
	if _, h := w.reply(); h.Header.Value("x-r") != "1" || h.Header.Value("content-type") != "text/plain" || h.ContentLength != 19 {
		t.Errorf("%+v", h)
	}
	w.decide(t, request("GET /admin/direct"))
	if _, h := w.reply(); h.Header.Value("x-r") != "" { // only its own answer has what such a route adds
		t.Errorf("%+v", h)
	}
}

// On a waypoint the source is the client of the tunnel; in a tunnel there is no other TLS to be authenticated by.
func TestRBACSource(t *testing.T) {
	w := newWorld(t, manager("", rbacFilter, vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
	const none = "403 RBAC: access denied - rbac_access_denied_matched_policy[none]"
	run(t, w, []row{{"GET /", nil, none}})
	w.conn.Identity = "spiffe://td/ns/default/sa/a"
	run(t, w, []row{{"GET /", nil, none}}) // not through a tunnel
	w.conn.Authority = "10.1.1.1:8080"
	run(t, w, []row{{"GET /", nil, " up / x"}, {"POST /", nil, none}})
	w.conn.Identity = "spiffe://td/ns/default/sa/b"
	run(t, w, []row{{"GET /", nil, none}, {"GET /", hs("x-forwarded-client-cert: URI=spiffe://td/ns/default/sa/a"), none}})
}

func TestSetFilterState(t *testing.T) {
	state := `{'name': 's', 'typed_config': {'@type': '` + typeURL + `extensions.filters.http.set_filter_state.v3.Config', 'on_request_headers': [
		{'object_key': 'k', 'factory_key': 'envoy.string', 'format_string': {'text_format_source': {'inline_string': '%REQ(x-a)%'}}, 'skip_if_empty': true}]}}`
	w := newWorld(t, manager("", state, vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}, 'request_headers_to_add': [{'header': {'key': 'x-b', 'value': '%FILTER_STATE(k:PLAIN)%'}}]}`)))
	w.decide(t, request("GET /", "x-a: v"))
	if v := w.req.Head.Header.Value("x-b"); v != "v" {
		t.Errorf("%q", v)
	}
	w.decide(t, request("GET /"))
	if v, ok := w.req.Head.Header.Get("x-b"); ok {
		t.Errorf("state of the request before: %q", v)
	}
}
