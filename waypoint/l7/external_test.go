package l7

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
)

const (
	asks = "{'name': 'envoy.filters.http.ext_authz', 'typed_config': {'@type': '" + typeURL + "extensions.filters.http.ext_authz.v3.ExtAuthz', " +
		"'http_service': {'server_uri': {'uri': 'http://a', 'cluster': 'authz', 'timeout': '1s'}, " +
		"'authorization_response': {'allowed_upstream_headers': {'patterns': [{'prefix': 'x-route'}]}, 'allowed_client_headers_on_success': {'patterns': [{'exact': 'x-cookie'}]}}}, " +
		"'clear_route_cache': true, 'filter_enabled_metadata': {'filter': 'envoy.filters.http.rbac', 'path': [{'key': 'istio_ext_authz_shadow_effective_policy_id'}], 'value': {'string_match': {'prefix': 'istio-ext-authz-p-ns['}}}}}"
	marks = "{'name': 'envoy.filters.http.rbac', 'typed_config': {'@type': '" + typeURL + "extensions.filters.http.rbac.v3.RBAC', 'shadow_rules_stat_prefix': 'istio_ext_authz_', " +
		"'shadow_rules': {'action': 'DENY', 'policies': {'istio-ext-authz-p-ns[a]-policy[b]-rule[0]': {'permissions': [{'url_path': {'path': {'prefix': '/asked'}}}], 'principals': [{'any': true}]}}}}}"
	denies = "{'name': 'envoy.filters.http.rbac', 'typed_config': {'@type': '" + typeURL + "extensions.filters.http.rbac.v3.RBAC', 'shadow_rules_stat_prefix': 'istio_dry_run_deny_', " +
		"'rules': {'action': 'DENY', 'policies': {'no': {'permissions': [{'header': {'name': 'x-route-no', 'present_match': true}}], 'principals': [{'any': true}]}}}, " +
		"'shadow_rules': {'action': 'DENY', 'policies': {'ns[a]-policy[try]-rule[0]': {'permissions': [{'url_path': {'path': {'prefix': '/asked/dry'}}}], 'principals': [{'any': true}]}}}}}"
	identity = "{'name': 'xfcc', 'typed_config': {'@type': '" + typeURL + "extensions.filters.http.header_mutation.v3.HeaderMutation', 'mutations': {'request_mutations': [{'append': {'header': {'key': 'x-forwarded-client-cert', " +
		"'value': 'By=%FILTER_STATE(io.istio.local_principal:PLAIN)%;URI=%FILTER_STATE(io.istio.peer_principal:PLAIN)%'}, 'append_action': 'OVERWRITE_IF_EXISTS_OR_ADD'}}]}}}"
)

func askingWorld(t *testing.T) *world {
	t.Helper()
	return newWorld(t, manager("", identity+","+marks+","+asks+","+denies, vhost(`
		{'match': {'prefix': '/', 'headers': [{'name': 'x-route', 'string_match': {'exact': 'b'}}]}, 'route': {'cluster': 'up2'}},
		{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
}

func said(t *testing.T, d *Decision, status int, fields ...string) extauthz.Verdict {
	t.Helper()
	if d.Ask == nil {
		t.Fatal("nobody is asked")
	}
	h := &httpmsg.Head{}
	h.Reset()
	h.Status = status
	for n := 0; n < len(fields); n += 2 {
		h.Header.Add(fields[n], fields[n+1])
	}
	return d.Ask.Read(h, []byte("because"), nil)
}

// Only what the shadow rules match is asked about; the decision goes on where it stopped, with what the authorizer has changed.
func TestDecisionsAsk(t *testing.T) {
	w := askingWorld(t)
	if d := w.decide(t, request("GET /free")); d.Ask != nil || d.ClusterName != "up" {
		t.Errorf("free: %+v", d)
	}
	d := w.decide(t, request("GET /asked"))
	if d.Reply != nil || d.Cluster != nil {
		t.Error("it was decided before anybody was asked")
	}
	w.cfg.Resume(d, &w.req, said(t, d, 200, "x-route", "b", "x-cookie", "c"), w.rnd)
	if d.Ask != nil || d.Reply != nil || d.ClusterName != "up2" {
		t.Errorf("allowed: %+v", d)
	}
	var response httpmsg.Head
	response.Reset()
	response.Status = 200
	d.ApplyResponse(&w.req, &response, &ResponseInfo{Now: w.now})
	if response.Header.Value("x-cookie") != "c" {
		t.Error("the client does not get its header")
	}
	d = w.decide(t, request("GET /asked"))
	w.cfg.Resume(d, &w.req, said(t, d, 200, "x-route-no", "1"), w.rnd)
	if d.Reply == nil || d.Reply.Status != 403 || d.Details != "rbac_access_denied_matched_policy[no]" {
		t.Errorf("a policy after the authorizer: %+v", d.Reply)
	}
	d = w.decide(t, request("GET /asked"))
	w.cfg.Resume(d, &w.req, said(t, d, 401, "www-authenticate", "a", "www-authenticate", "b"), w.rnd)
	got, head := w.reply()
	if names, _ := head.Header.Joined("www-authenticate"); got != "401 because" || names != "a,b" || d.Flags != FlagUnauthorized {
		t.Errorf("denied: %s %s %v", got, names, d.Flags)
	}
	d = w.decide(t, request("GET /asked"))
	w.cfg.Resume(d, &w.req, extauthz.Verdict{}, w.rnd)
	if d.Reply == nil || d.Reply.Status != 403 || d.Details != "ext_authz_error" {
		t.Errorf("failed: %+v", d.Reply)
	}
}

// Policies of a dry run are told of; what an authorizer is asked about is none.
func TestShadowsOfRequests(t *testing.T) {
	w := askingWorld(t)
	d := w.decide(t, request("GET /asked/dry"))
	w.cfg.Resume(d, &w.req, said(t, d, 200), w.rnd)
	if d.Reply != nil || len(w.req.Shadows) != 1 || w.req.Shadows[0] != (Shadow{Policy: "ns[a]-policy[try]-rule[0]"}) {
		t.Errorf("%v", w.req.Shadows)
	}
	w.decide(t, request("GET /free"))
	if len(w.req.Shadows) != 1 || w.req.Shadows[0] != (Shadow{Allowed: true}) {
		t.Errorf("%v", w.req.Shadows)
	}
}

// What a client says of itself never arrives.
func TestClientIdentityFilter(t *testing.T) {
	w := askingWorld(t)
	w.conn.Authority, w.conn.Identity, w.conn.LocalIdentity = "10.1.1.1:8080", "spiffe://a/ns/b/sa/c", "spiffe://a/ns/b/sa/w"
	w.decide(t, request("GET /free", "x-forwarded-client-cert: URI=spiffe://a/ns/b/sa/admin"))
	if got := w.req.Head.Header.Value("x-forwarded-client-cert"); got != "By=spiffe://a/ns/b/sa/w;URI=spiffe://a/ns/b/sa/c" {
		t.Error(got)
	}
}

// Who only explains asks nobody, and goes on.
func TestExplainingAsksNobody(t *testing.T) {
	w := askingWorld(t)
	ch, ok := w.cfg.Chain("l", &w.conn, ProtocolUnknown)
	if !ok {
		t.Fatal("no chain")
	}
	w.req.Begin(request("GET /asked"), &w.conn)
	steps := w.cfg.Explain(&w.d, ch, &w.req, w.now, w.rnd)
	asked := ""
	for _, s := range steps {
		asked += s.Asks
	}
	if w.d.Ask != nil || w.d.ClusterName != "up" || asked != "authz" {
		t.Errorf("%+v %v", w.d, steps)
	}
}
