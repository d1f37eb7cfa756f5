package proxy

import (
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
)

const (
	sessionFilter = `{"name":"envoy.filters.http.stateful_session","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession"}}`
	// keepsSession is a route's word, with more of the filter's configuration.
	keepsSession = `,"typed_per_filter_config":{"envoy.filters.http.stateful_session":{"@type":"type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
"stateful_session":{"session_state":{"name":"envoy.http.stateful_session.cookie","typed_config":{"@type":"type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
"cookie":{"name":"sid","path":"/"}}}`
)

// sticky is a route that keeps sessions.
func sticky(route, filter string) string {
	return strings.TrimSuffix(to(route), "}") + keepsSession + filter + `}}}}`
}

// A client with cookies comes to the same pod each time, and to another one for good when that is gone.
func TestSessionStaysAtItsPod(t *testing.T) {
	b := newBed(t)
	one, two := b.backend("reviews", say("one")), b.backend("reviews", say("two"))
	b.filters, b.routes = sessionFilter, sticky("", "")
	b.apply(one, two)
	c := b.client("productpage", false)
	var err error
	if c.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	_, first := get(t, c, "/")
	for range 12 {
		if _, again := get(t, c, "/"); again != first {
			t.Fatalf("pod %s, then %s", first, again)
		}
	}
	left, other := two, "two"
	if first == "two" {
		left, other = one, "one"
	}
	b.endpoints(left)
	until(t, "another pod", func() bool { _, got := get(t, c, "/"); return got == other })
	b.endpoints(one, two)
	for range 12 {
		if _, got := get(t, c, "/"); got != other {
			t.Fatalf("the session went to pod %s, and back to %s", other, got)
		}
	}
}

// The first attempt goes to the session's host, a retry to another one, which then has the session.
func TestSessionAndRetries(t *testing.T) {
	b := newBed(t)
	fails := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	sick, well := b.backend("reviews", fails), b.backend("reviews", say("well"))
	b.filters, b.routes = sessionFilter, sticky(","+retryPolicy+"}", "")
	b.apply(sick)
	c := b.client("productpage", false)
	var err error
	if c.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(t, c, "/"); status != 503 {
		t.Fatalf("status %d", status)
	}
	b.endpoints(sick, well)
	until(t, "the other pod", func() bool { status, _ := get(t, c, "/"); return status == 200 })
	before := sick.requests.Load()
	for range 6 {
		if status, _ := get(t, c, "/"); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if n := sick.requests.Load() - before; n != 0 {
		t.Errorf("%d more attempts at the pod that had the session", n)
	}
}

// Where no other host will do, the answer says that the one is gone; one that is there and fails may be replaced by a retry.
func TestSessionThatIsStrict(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", say("pod"))
	b.filters, b.routes = sessionFilter, sticky("", `,"strict":true,"status_on_strict_destination_not_found":410`)
	b.apply(pod)
	c := b.client("productpage", false)
	ask := func(cookie string) (int, []string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+":9080/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if cookie != "" {
			r.Header.Set("cookie", cookie)
		}
		response, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode, response.Header.Values("set-cookie")
	}
	status, set := ask("")
	if status != 200 || len(set) != 1 || !strings.HasPrefix(set[0], `sid="`) {
		t.Fatalf("%d, %q", status, set)
	}
	cookie, _, _ := strings.Cut(set[0], ";")
	if status, again := ask(cookie); status != 200 || len(again) != 0 {
		t.Errorf("%d, %q", status, again)
	}
	b.endpoints(b.backend("reviews", say("another")))
	until(t, "that it is gone", func() bool { status, _ := ask(cookie); return status == 410 })
	if status, set := ask(""); status != 200 || len(set) != 1 {
		t.Errorf("without a session: %d, %q", status, set)
	}
}
