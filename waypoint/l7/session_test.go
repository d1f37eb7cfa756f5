package l7

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

const (
	sessionAny  = "{'name': 'envoy.filters.http.stateful_session', 'typed_config': {'@type': '" + sessionType + "'}}"
	sessionType = typeURL + "extensions.filters.http.stateful_session.v3.StatefulSession"
)

func cookieState(cookie string) string {
	return `{'name': 'envoy.http.stateful_session.cookie', 'typed_config': {'@type': '` + typeURL + `extensions.http.stateful_session.cookie.v3.CookieBasedSessionState', 'cookie': ` + cookie + `}}`
}

func headerState(name string) string {
	return `{'name': 'envoy.http.stateful_session.header', 'typed_config': {'@type': '` + typeURL + `extensions.http.stateful_session.header.v3.HeaderBasedSessionState', 'name': '` + name + `'}}`
}

func perSession(config string) string {
	return perRoute("envoy.filters.http.stateful_session", "extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute", ", "+config)
}

func keeps(state, more string) string {
	return perSession(`'stateful_session': {'session_state': ` + state + more + `}`)
}

const (
	pod     = "envoy://connect_originate/10.0.0.1:8080"
	another = "envoy://connect_originate/10.0.0.2:8080"
)

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// answered is what the response of a host to the last request says of the session: the header, or set-cookie.
func (w *world) answered(host, name string) string {
	var h httpmsg.Head
	h.Reset()
	h.Status = 200
	w.d.ApplyResponse(&w.req, &h, &ResponseInfo{Upstream: true, Attempts: 1, HostAddress: host, Now: w.now})
	return h.Header.Value(name)
}

func TestSessionByCookie(t *testing.T) {
	w := newWorld(t, manager("", sessionAny, vhost(`
		{'match': {'prefix': '/plain'}, 'route': {'cluster': 'up'}},
		{'match': {'prefix': '/off'}, 'route': {'cluster': 'up'}, `+perSession(`'disabled': true`)+`},
		{'match': {'prefix': '/shop'}, 'route': {'cluster': 'up'}, `+keeps(cookieState(`{'name': 'sid', 'path': '/shop', 'ttl': '90.5s', 'attributes': [{'name': 'SameSite', 'value': 'Lax'}, {'name': 'Secure'}]}`), "")+`},
		{'match': {'prefix': '/strict'}, 'route': {'cluster': 'up'}, `+keeps(cookieState(`{'name': 'sid'}`), `, 'strict': true, 'status_on_strict_destination_not_found': 410`)+`},
		{'match': {'prefix': '/'}, 'route': {'weighted_clusters': {'clusters': [{'name': 'up', 'weight': 1, `+keeps(cookieState(`{'name': 'sid', 'path': '/'}`), "")+`}]}}}`)))
	own := "sid=" + sessionCookieValue(pod, 0, w.now)
	for _, test := range []struct {
		path, cookie string
		want         SessionHost
		set          string // by the host pod
	}{
		{"/plain", own, SessionHost{}, ""},
		{"/off", own, SessionHost{}, ""},
		{"/", "", SessionHost{}, `sid="` + sessionCookieValue(pod, 0, w.now) + `"; Path=/; HttpOnly`},
		{"/", own, SessionHost{Address: pod, Status: 503}, ""},
		{"/", "a=b; " + own + "; c=d", SessionHost{Address: pod, Status: 503}, ""},
		{"/", `sid="` + sessionCookieValue(pod, 0, w.now) + `"`, SessionHost{Address: pod, Status: 503}, ""},
		{"/", "sid=" + sessionCookieValue(another, 0, w.now), SessionHost{Address: another, Status: 503}, `sid="` + sessionCookieValue(pod, 0, w.now) + `"; Path=/; HttpOnly`},
		{"/", "sid=!", SessionHost{}, `sid="` + sessionCookieValue(pod, 0, w.now) + `"; Path=/; HttpOnly`},
		{"/shop", "", SessionHost{}, `sid="` + sessionCookieValue(pod, 90*time.Second, w.now) + `"; Max-Age=90; Path=/shop; SameSite=Lax; Secure; HttpOnly`},
		{"/shop/a", "sid=" + sessionCookieValue(pod, 90*time.Second, w.now), SessionHost{Address: pod, Status: 503}, ""},
		{"/shop?a=b", own, SessionHost{Address: pod, Status: 503}, ""},
		{"/shop/a", "sid=" + sessionCookieValue(pod, 90*time.Second, w.now.Add(-92*time.Second)), SessionHost{}, `sid="` + sessionCookieValue(pod, 90*time.Second, w.now) + `"; Max-Age=90; Path=/shop; SameSite=Lax; Secure; HttpOnly`},
		{"/shopping", own, SessionHost{}, ""}, // clients do not send the cookie there
		{"/strict", own, SessionHost{Address: pod, Strict: true, Status: 410}, ""},
		{"/strict", "", SessionHost{}, `sid="` + sessionCookieValue(pod, 0, w.now) + `"; HttpOnly`},
	} {
		var headers []string
		if test.cookie != "" {
			headers = hs("cookie: " + test.cookie)
		}
		if d := w.decide(t, request("GET "+test.path, headers...)); d.Session != test.want || d.Reply != nil {
			t.Errorf("%s with %s: %+v, want %+v (%v)", test.path, test.cookie, d.Session, test.want, d.Reply)
		}
		if got := w.answered(pod, "set-cookie"); got != test.set {
			t.Errorf("%s with %s: set-cookie %q, want %q", test.path, test.cookie, got, test.set)
		}
		if got := w.answered("", "set-cookie"); got != "" {
			t.Errorf("%s with %s: set-cookie %q, and there was no host", test.path, test.cookie, got)
		}
	}
}

// An answer of ours names the host, too, where one was chosen.
func TestSessionOfOwnAnswers(t *testing.T) {
	w := newWorld(t, manager("", sessionAny, vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}, `+keeps(cookieState(`{'name': 'sid'}`), "")+`}`)))
	w.decide(t, request("GET /"))
	for host, want := range map[string]string{pod: `sid="` + sessionCookieValue(pod, 0, w.now) + `"; HttpOnly`, "": ""} {
		var h httpmsg.Head
		w.d.LocalReply(&w.req, &Reply{Status: 504, GRPCStatus: -1}, &ResponseInfo{Attempts: 1, HostAddress: host, Now: w.now}, &h)
		if got := h.Header.Value("set-cookie"); got != want {
			t.Errorf("host %q: set-cookie %q, want %q", host, got, want)
		}
	}
}

func TestSessionByHeader(t *testing.T) {
	filter := strings.Replace(sessionAny, "'"+sessionType+"'", "'"+sessionType+"', 'session_state': "+headerState("X-Session"), 1)
	w := newWorld(t, manager("", filter, vhost(`{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
	for value, want := range map[string]SessionHost{
		"": {}, base64Of(pod): {Address: pod, Status: 503}, "no base64": {}, "AA": {}, sessionCookieValue(pod, 0, w.now): {Address: "\n'" + pod, Status: 503},
	} {
		var headers []string
		if value != "" {
			headers = hs("x-session: " + value)
		}
		if d := w.decide(t, request("GET /", headers...)); d.Session != want {
			t.Errorf("%q: %+v, want %+v", value, d.Session, want)
		}
		if got := w.answered(pod, "x-session"); (got == "") != (want.Address == pod) || got != "" && got != base64Of(pod) {
			t.Errorf("%q: the response has %q", value, got)
		}
	}
}

func TestSessionsThatCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		`{'session_state': ` + cookieState(`{'path': '/'}`) + `}`:                                                            "session_state.typed_config.cookie.name",
		`{'session_state': ` + headerState("") + `}`:                                                                         "session_state.typed_config.name",
		`{'session_state': {'name': 'x', 'typed_config': {'@type': '` + typeURL + `extensions.filters.http.cors.v3.Cors'}}}`: "session_state.typed_config: type envoy.extensions.filters.http.cors.v3.Cors is not supported",
		`{'session_state': {'name': 'x'}}`:                                                                                   "session_state.typed_config",
		`{'session_state': ` + headerState("a") + `, 'strict': true, 'status_on_strict_destination_not_found': 7}`:           "status_on_strict_destination_not_found",
	} {
		if _, err := compileSession(parse(t, &sessionv3.StatefulSession{}, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Which health a session's host may have.
func TestSessionHealth(t *testing.T) {
	for text, want := range map[string][Draining + 1]bool{
		`{}`:                           {true, true, false, false},
		`{'override_host_status': {}}`: {},
		`{'override_host_status': {'statuses': ['UNKNOWN', 'HEALTHY', 'DEGRADED', 'DRAINING']}}`: {true, true, false, true},
		`{'override_host_status': {'statuses': ['TIMEOUT']}}`:                                    {false, false, true, false},
	} {
		c, err := CompileCluster(parse(t, &clusterv3.Cluster{}, `{'name': 'c', 'type': 'EDS', 'connect_timeout': '1s', 'eds_cluster_config': {'eds_config': {'ads': {}}}, 'common_lb_config': `+text+`}`))
		if err != nil {
			t.Fatal(err)
		}
		if c.LB.SessionHealth != want {
			t.Errorf("%s: %v, want %v", text, c.LB.SessionHealth, want)
		}
	}
}

// What older and newer Envoys write, and what nobody does. A value in which a reader of protobuf finds a message is one.
func TestSessionCookieValues(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, test := range []struct{ bytes, want string }{
		{"", ""},
		{"\x0a\x0b10.0.0.1:80", "10.0.0.1:80"},
		{"\x0a\x0a10.0.0.1:8", "10.0.0.1:8"},
		{"\x0a\x0b10.0.0.1:80\x10\xe8\x07", "10.0.0.1:80"},
		{"\x0a\x0b10.0.0.1:80\x10\xe7\x07", ""},
		{"\x0a\x0b10.0.0.1:80\x10\x00", "10.0.0.1:80"},
		{"\x0a\x01a\x0a\x01b", "b"},
		{"\x18\x01\x0a\x01b", "b"},
		{"\x0a\x01\xff", "\x0a\x01\xff"},
		{"1.2.3.4:80", "1.2.3.4:80"},
		{"10.0.0.1:80", ""}, // an eight-byte field 6 and a varint
		{"\x0a\xff", "\x0a\xff"},
	} {
		if got := parseSessionCookie(base64Of(test.bytes), now); got != test.want {
			t.Errorf("%q: %q, want %q", test.bytes, got, test.want)
		}
	}
	if got := parseSessionCookie("CgE", now); got != "" {
		t.Errorf("without padding: %q", got)
	}
}

// Whatever a client sends: never a panic, and what we write is read back for as long as it holds.
func FuzzSessionCookie(f *testing.F) {
	f.Add(sessionCookieValue(pod, time.Minute, time.Unix(1000, 0)), pod, int64(60))
	f.Add(base64Of("10.0.0.1:80"), "10.0.0.1:80", int64(0))
	f.Add("CgE=", "\xff", int64(-1))
	f.Fuzz(func(t *testing.T, value, address string, ttl int64) {
		now := time.Unix(1_800_000_000, 0)
		parseSessionCookie(value, now)
		decodeHost(value)
		lives := time.Duration(ttl%1e9) * time.Second
		own := sessionCookieValue(address, lives, now)
		got := parseSessionCookie(own, now.Add(max(0, lives)))
		if utf := strings.ToValidUTF8(address, "") == address; utf && got != address || !utf && got == address {
			t.Errorf("%q is read back as %q", address, got)
		}
		if lives > 0 && parseSessionCookie(own, now.Add(lives+time.Second)) == address && address != "" && strings.ToValidUTF8(address, "") == address {
			t.Errorf("%q holds for too long", address)
		}
	})
}
