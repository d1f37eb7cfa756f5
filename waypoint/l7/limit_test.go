package l7

import (
	"fmt"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// limitFilter allows so many requests a day to each x-user.
func limitFilter(name string, requests int) string {
	return fmt.Sprintf(`{'name': 'isthmus.ratelimit/%s', 'typed_config': {'@type': '%sextensions.filters.http.local_ratelimit.v3.LocalRateLimit', 'stat_prefix': '%s',
		'filter_enabled': {'default_value': {'numerator': 100}}, 'filter_enforced': {'default_value': {'numerator': 100}}, 'always_consume_default_token_bucket': false,
		'enable_retry_after_header': true, 'rate_limited_as_resource_exhausted': true, 'max_dynamic_descriptors': 10,
		'response_headers_to_add': [{'header': {'key': 'x-envoy-ratelimited', 'value': 'true'}, 'append_action': 'OVERWRITE_IF_EXISTS_OR_ADD'}],
		'rate_limits': [{'x_ratelimit_option': 'DRAFT_VERSION_03', 'actions': [{'generic_key': {'descriptor_key': 'limit', 'descriptor_value': '0'}}, {'request_headers': {'header_name': 'x-user', 'descriptor_key': 'user', 'skip_if_absent': true}}]}],
		'descriptors': [{'entries': [{'key': 'limit', 'value': '0'}, {'key': 'user'}], 'token_bucket': {'max_tokens': %[4]d, 'tokens_per_fill': %[4]d, 'fill_interval': '86400s'}}]}}`, name, typeURL, name, requests)
}

func limitedWorld(t testing.TB, filters ...string) *world {
	t.Helper()
	return newWorld(t, manager("", strings.Join(filters, ","), vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
}

func TestLimitedRequests(t *testing.T) {
	w := limitedWorld(t, limitFilter("a/b", 2))
	for i, left := range []string{"1", "0"} {
		d := w.decide(t, request("GET /", "x-user: jane"))
		if d.Reply != nil {
			t.Fatalf("%d: %+v", i, d.Reply)
		}
		var response httpmsg.Head
		response.Reset()
		response.Status = 200
		d.ApplyResponse(&w.req, &response, &ResponseInfo{Now: w.now})
		if h := &response.Header; h.Value("x-ratelimit-limit") != "2" || h.Value("x-ratelimit-remaining") != left || h.Value("retry-after") != "" {
			t.Errorf("%d: %v", i, h.Fields())
		}
	}
	w.now = w.now.Add(time.Second)
	d := w.decide(t, request("GET /", "x-user: jane"))
	if d.Reply == nil || d.Flags != FlagRateLimited || d.Flags.String() != "RL" || d.Details != "local_rate_limited" {
		t.Fatalf("%+v", d)
	}
	got, head := w.reply()
	if h := &head.Header; got != "429 local_rate_limited" || h.Value("retry-after") != "43199" || h.Value("x-envoy-ratelimited") != "true" || h.Value("x-ratelimit-remaining") != "0" || h.Value("x-ratelimit-reset") != "43199" {
		t.Errorf("%s %v", got, h.Fields())
	}
	w.decide(t, request("POST /a.B/C", "x-user: jane", "content-type: application/grpc"))
	if got, head := w.reply(); got != "200" || head.Header.Value("grpc-status") != "8" || head.Header.Value("grpc-message") != "local_rate_limited" {
		t.Errorf("%s %v", got, head.Header.Fields())
	}
	if d := w.decide(t, request("GET /", "x-user: joe")); d.Reply != nil {
		t.Errorf("another client: %+v", d.Reply)
	}
	if d := w.decide(t, request("GET /")); d.Reply != nil || len(d.resp.shown) > 0 {
		t.Errorf("no limit concerns it: %+v", d)
	}
	if s := w.cfg.LimitStats(); len(s) != 1 || s[0] != (LimitStats{"a/b", 6, 4, 2, 2}) {
		t.Errorf("%+v", s)
	}
}

// What a limit has counted survives a change of the listener that leaves it as it is; nothing else does.
func TestLimitsSurviveChanges(t *testing.T) {
	w := limitedWorld(t, limitFilter("a/b", 1), limitFilter("a/c", 100))
	ask := func() bool { return w.decide(t, request("GET /", "x-user: jane")).Reply != nil }
	change := func(filters ...string) {
		t.Helper()
		l, err := CompileListener(parse(t, &listenerv3.Listener{}, `{'name': 'l', 'address': {'socket_address': {'address': '127.0.0.1', 'port_value': 8080}},
			'filter_chains': [{'name': 'c', 'filters': [`+manager("", strings.Join(filters, ","), vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up2'}}`))+`]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		w.cfg = w.cfg.With(Update{Listeners: map[string]*Listener{"l": l}})
	}
	if ask() {
		t.Error("the first request is refused")
	}
	change(limitFilter("a/c", 100), limitFilter("a/b", 1))
	if !ask() {
		t.Error("forgotten at a change of the order")
	}
	change(limitFilter("a/b", 2))
	if ask() {
		t.Error("a limit that has changed goes on")
	}
	change(limitFilter("a/d", 2))
	if first, second := ask(), ask(); first || second {
		t.Error("another policy goes on")
	}
	change()
	change(limitFilter("a/b", 2))
	if first, second, third := ask(), ask(), ask(); first || second || !third {
		t.Error("a policy that was gone goes on")
	}
}

// Who only explains takes nothing.
func TestExplainingTakesNothing(t *testing.T) {
	w := limitedWorld(t, limitFilter("a/b", 1))
	ch, ok := w.cfg.Chain("l", &w.conn, ProtocolUnknown)
	if !ok {
		t.Fatal("no chain")
	}
	for range 3 {
		w.req.Begin(request("GET /", "x-user: jane"), &w.conn)
		steps := w.cfg.Explain(&w.d, ch, &w.req, w.now, w.rnd)
		if len(steps) != 1 || steps[0].Limit == nil || !steps[0].Limit.Enforced || w.d.Reply != nil {
			t.Fatalf("%+v", steps)
		}
		if c := steps[0].Limit.Concerns; len(c) != 1 || c[0].Rate != "1 requests a day" || c[0].Limit != "0" || fmt.Sprint(c[0].Values) != "[user jane]" {
			t.Errorf("%+v", c)
		}
	}
	if d := w.decide(t, request("GET /", "x-user: jane")); d.Reply != nil {
		t.Error("explaining has taken a token")
	}
}

// A limit of a route takes the place of the listener's.
func TestLimitOfRoute(t *testing.T) {
	own := strings.TrimSuffix(strings.SplitN(limitFilter("a/b", 1), "'typed_config': ", 2)[1], "}")
	w := newWorld(t, manager("", limitFilter("a/b", 100), vhost(`
		{'match': {'prefix': '/one'}, 'route': {'cluster': 'up'}, 'typed_per_filter_config': {'isthmus.ratelimit/a/b': `+own+`}},
		{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
	for i, want := range []bool{false, true} {
		if got := w.decide(t, request("GET /one", "x-user: jane")).Reply != nil; got != want {
			t.Errorf("%d: %v", i, got)
		}
	}
	if w.decide(t, request("GET /", "x-user: jane")).Reply != nil {
		t.Error("the other route is limited")
	}
}

// TestLimitedWithoutAllocations: a decision costs what it costs without limits.
func TestLimitedWithoutAllocations(t *testing.T) {
	plain := strings.ReplaceAll(limitFilter("a/b", 1), "'x_ratelimit_option': 'DRAFT_VERSION_03', ", "")
	measure := func(w *world) float64 {
		head := request("GET /", "x-user: jane", "x-forwarded-proto: http")
		ch, _ := w.cfg.Chain("l", &w.conn, ProtocolUnknown)
		return testing.AllocsPerRun(100, func() {
			w.req.Begin(head, &w.conn)
			w.cfg.Decide(&w.d, ch, &w.req, w.now, w.rnd)
		})
	}
	without := measure(limitedWorld(t))
	if with := measure(limitedWorld(t, plain)); with > without {
		t.Errorf("%v allocations, %v without a limit", with, without)
	}
}
