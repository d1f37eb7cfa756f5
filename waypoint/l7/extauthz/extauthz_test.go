package extauthz

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

func compile(t testing.TB, text string) *Filter {
	t.Helper()
	p := &extauthzv3.ExtAuthz{}
	if err := protojson.Unmarshal([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const byHTTP = `{"http_service": {"server_uri": {"uri": "http://a", "cluster": "authz", "timeout": "1s"}, "path_prefix": "/check",
"authorization_request": {"headers_to_add": [{"key": "x-mesh", "value": "100%%"}]},
"authorization_response": {"allowed_upstream_headers": {"patterns": [{"prefix": "x-up"}]}, "allowed_client_headers": {"patterns": [{"exact": "x-why"}]},
"allowed_client_headers_on_success": {"patterns": [{"exact": "x-cookie"}]}}},
"allowed_headers": {"patterns": [{"exact": "x-told", "ignore_case": true}]}, "clear_route_cache": true,
"with_request_body": {"max_request_bytes": 4, "allow_partial_message": true}}`

const byGRPC = `{"grpc_service": {"envoy_grpc": {"cluster_name": "authz", "authority": "authz.example"}, "timeout": "600s"}, "transport_api_version": "V3"}`

func info(fields ...string) *exchange.Info {
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Authority, h.Path, h.Scheme = httpmsg.HTTP11, "POST", "svc", "/p?q=1", "http"
	for n := 0; n < len(fields); n += 2 {
		h.Header.Add(fields[n], fields[n+1])
	}
	return &exchange.Info{Head: h, Now: time.Unix(5, 0), Conn: &exchange.Conn{
		Source: netip.MustParseAddrPort("10.0.0.1:5"), Destination: netip.MustParseAddrPort("10.0.0.2:80"), Identity: "spiffe://a/ns/b/sa/c", Authority: "x",
	}}
}

// By HTTP the authorizer is told what was listed, and what was not is not.
func TestAskHTTP(t *testing.T) {
	f := compile(t, byHTTP)
	q, err := f.Ask(info("x-told", "1", "x-told", "2", "authorization", "Bearer t", "x-private", "p", "x-mesh", "mine", "connection", "close"), []byte("body"), true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for k, v := range q.Head.Header.All() {
		got = append(got, k+"="+v)
	}
	text := q.Head.Method + " " + q.Head.Path + " " + q.Head.Authority + " " + strings.Join(got, " ") + " " + string(q.Body)
	const want = "POST /check/p?q=1 svc x-told=1,2 authorization=Bearer t x-envoy-auth-partial-body=true x-mesh=100% x-envoy-internal=true x-envoy-expected-rq-timeout-ms=1000 body"
	if text != want {
		t.Errorf("asked\n%s\nwant\n%s", text, want)
	}
}

func TestAskGRPC(t *testing.T) {
	f := compile(t, byGRPC)
	i := info("x-any", "1", "x-bad", "\xff")
	q, err := f.Ask(i, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	asked := &authv3.CheckRequest{}
	if err := unframe(q.Body, asked); err != nil {
		t.Fatal(err)
	}
	a := asked.GetAttributes()
	h := a.GetRequest().GetHttp()
	if q.Head.Path != checkPath || q.Head.Authority != "authz.example" || q.Head.Header.Value("grpc-timeout") != "600000m" ||
		h.GetMethod() != "POST" || h.GetPath() != "/p?q=1" || h.GetHost() != "svc" || h.GetHeaders()["x-any"] != "1" || h.GetHeaders()[":authority"] != "svc" ||
		h.GetHeaders()["x-bad"] != "!" || a.GetSource().GetPrincipal() != "spiffe://a/ns/b/sa/c" || a.GetSource().GetAddress().GetSocketAddress().GetPortValue() != 5 {
		t.Errorf("asked %v", asked)
	}
}

func answerOf(status int, fields ...string) *httpmsg.Head {
	h := info(fields...).Head
	h.Status = status
	return h
}

// What an answer by HTTP makes of the request, and of the response.
func TestReadHTTP(t *testing.T) {
	f := compile(t, byHTTP)
	i := info("x-up", "old", "x-gone", "1", "host", "h")
	v := f.Read(answerOf(200, "x-up", "new", "x-other", "1", "x-envoy-auth-headers-to-remove", "x-gone, :path , host", "x-cookie", "c"), nil, nil)
	if no := f.Settle(i, &v); no != nil || i.Head.Header.Value("x-up") != "new" || i.Head.Header.Value("x-other") != "" || i.Head.Header.Value("x-gone") != "" ||
		i.Head.Path != "/p?q=1" || !i.ClearRoute {
		t.Errorf("%v %v", no, i.Head)
	}
	var response httpmsg.Header
	response.Add("x-cookie", "b")
	v.Respond(&response)
	if got, _ := response.Joined("x-cookie"); got != "b,c" {
		t.Errorf("response: %s", got)
	}
	v = f.Read(answerOf(302, "x-why", "w", "location", "/l", "x-other", "1", "connection", "close"), []byte("no"), nil)
	no := f.Settle(info(), &v)
	if no == nil || no.Status != 302 || no.Body != "no" || len(no.Header) != 2 || no.Details != "ext_authz_denied" {
		t.Errorf("%+v", no)
	}
}

// Whatever fails, nobody passes: unless that was asked for.
func TestFailures(t *testing.T) {
	closed, open := compile(t, byGRPC), compile(t, strings.Replace(byGRPC, "{", `{"failure_mode_allow": true, "failure_mode_allow_header_add": true, `, 1))
	ok := answerOf(200)
	trailer := func(status string) *httpmsg.Header {
		var h httpmsg.Header
		h.Add("grpc-status", status)
		return &h
	}
	allowed, err := framed(&authv3.CheckResponse{})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]Verdict{
		"nobody asked":       {},
		"500":                closed.Read(answerOf(500), nil, trailer("0")),
		"no trailer":         closed.Read(ok, allowed, nil),
		"a gRPC error":       closed.Read(ok, allowed, trailer("14")),
		"nothing":            closed.Read(ok, nil, trailer("0")),
		"compressed":         closed.Read(ok, append([]byte{1}, allowed[1:]...), trailer("0")),
		"longer than it is":  closed.Read(ok, []byte{0, 0, 0, 0, 9, 1}, trailer("0")),
		"no message":         closed.Read(ok, []byte{0, 0, 0, 0, 1, 0xff}, trailer("0")),
		"a failure by HTTP":  compile(t, byHTTP).Read(answerOf(503), nil, nil),
		"two messages in it": closed.Read(ok, append(append([]byte{}, allowed...), allowed...), trailer("0")),
	} {
		if v.Outcome != Failed {
			t.Errorf("%s: outcome %d", name, v.Outcome)
		}
		if no := closed.Settle(info(), &v); no == nil || no.Status != 403 || no.Details != "ext_authz_error" {
			t.Errorf("%s: %+v", name, no)
		}
		i := info()
		if no := open.Settle(i, &v); no != nil || i.Head.Header.Value("x-envoy-auth-failure-mode-allowed") != "true" {
			t.Errorf("%s: %+v", name, no)
		}
	}
	if v := closed.Read(ok, allowed, trailer("0")); v.Outcome != Allowed {
		t.Errorf("allowed: %+v", v)
	}
}

// An answer cannot make a header of two, or another request of one.
func TestInvalidAnswers(t *testing.T) {
	f := compile(t, strings.Replace(byGRPC, "{", `{"failure_mode_allow": true, `, 1))
	for _, text := range []string{
		`{"ok_response": {"headers": [{"header": {"key": "x", "value": "a\r\nx-admin: 1"}}]}}`,
		`{"ok_response": {"headers": [{"header": {"key": "x y", "value": "a"}}]}}`,
		`{"ok_response": {"response_headers_to_add": [{"header": {"key": "", "value": "a"}}]}}`,
		`{"status": {"code": 7}, "denied_response": {"headers": [{"header": {"key": "x", "value": "\u0000"}}]}}`,
		`{"status": {"code": 7}, "denied_response": {"status": {"code": 100}}}`,
	} {
		r := &authv3.CheckResponse{}
		if err := protojson.Unmarshal([]byte(text), r); err != nil {
			t.Fatal(err)
		}
		v := verdictOf(r)
		if no := f.Settle(info(), &v); no == nil || no.Status != 500 {
			t.Errorf("%s: %+v", text, no)
		}
	}
	r := &authv3.CheckResponse{}
	if err := protojson.Unmarshal([]byte(`{"ok_response": {"headers": [{"header": {"key": "content-length", "value": "9"}}, {"header": {"key": "transfer-encoding", "value": "chunked"}},
		{"header": {"key": ":path", "value": "/b c"}}, {"header": {"key": ":method", "value": "CONNECT"}}]}}`), r); err != nil {
		t.Fatal(err)
	}
	v, i := verdictOf(r), info()
	if no := f.Settle(i, &v); no != nil || i.Head.Header.Len() != 0 || i.Head.Path != "/p?q=1" || i.Head.Method != "POST" {
		t.Errorf("%v %+v", no, i.Head)
	}
}

func TestQuery(t *testing.T) {
	set := []httpmsg.Field{{Key: "a", Value: "x y"}}
	for path, want := range map[string]string{
		"/p": "/p?a=x+y", "/p?b=1&a=2&%61=3&c": "/p?b=1&a=x+y", "/p?#f": "/p?a=x+y#f",
	} {
		if got := changeQuery(path, set, []string{"c"}); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// Whatever an authorizer answers, the request stays one.
func FuzzAnswer(f *testing.F) {
	allowed, err := framed(&authv3.CheckResponse{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(200, "x-up", "v", allowed)
	f.Add(403, "location", "v", []byte("body"))
	f.Fuzz(func(t *testing.T, status int, name, value string, body []byte) {
		var trailer httpmsg.Header
		trailer.Add("grpc-status", "0")
		for _, filter := range []*Filter{compile(t, byHTTP), compile(t, byGRPC)} {
			v := filter.Read(answerOf(status, strings.ToLower(name), value), body, &trailer)
			i := info()
			no := filter.Settle(i, &v)
			if no != nil && (no.Status < 200 && no.Status != status || no.Details == "") {
				t.Fatalf("%+v", no)
			}
			if i.Head.Method == "CONNECT" || !strings.HasPrefix(i.Head.Path, "/") || strings.ContainsAny(i.Head.Path, " \r\n") {
				t.Fatalf("%+v", i.Head)
			}
			if filter.GRPC {
				for _, field := range i.Head.Header.Fields() {
					if framing(field.Key) || !validName(field.Key) || !validValue(field.Value) {
						t.Fatalf("%q: %q", field.Key, field.Value)
					}
				}
			}
		}
	})
}
