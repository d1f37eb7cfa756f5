package productpage

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/internal/env"
)

// mesh stands for the other services: answers by host name, and what was asked.
type mesh struct {
	answers map[string]func(*http.Request) (int, string) // by host without port; absent: no answer until the time-out

	mu    sync.Mutex
	calls []*http.Request // guarded by mu
}

func (m *mesh) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	m.calls = append(m.calls, r)
	m.mu.Unlock()
	answer := m.answers[r.URL.Hostname()]
	if answer == nil {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	status, body := answer(r)
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (m *mesh) called(host string) []*http.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*http.Request
	for _, r := range m.calls {
		if r.URL.Hostname() == host {
			out = append(out, r)
		}
	}
	return out
}

func fixed(status int, body string) func(*http.Request) (int, string) {
	return func(*http.Request) (int, string) { return status, body }
}

const (
	detailsJSON = `{"id":0,"author":"William Shakespeare","year":1595,"pages":200,"publisher":"PublisherA","ISBN-10":"1234567890"}`
	reviewsJSON = `{"id":"0","podname":"reviews-v3-abc-12","clustername":"east","reviews":[` +
		`{"reviewer":"Reviewer1","text":"A <b>joy</b>","rating":{"stars":5,"color":"red"}},` +
		`{"reviewer":"Reviewer2","text":"Fun","rating":{"error":"Ratings service is currently unavailable"}}]}`
	ratingsJSON = `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`
)

func healthy() *mesh {
	return &mesh{answers: map[string]func(*http.Request) (int, string){
		"details": fixed(200, detailsJSON), "reviews": fixed(200, reviewsJSON), "ratings": fixed(200, ratingsJSON),
	}}
}

func newHandler(t *testing.T, m *mesh, vars map[string]string) http.Handler {
	t.Helper()
	cfg, err := LoadConfig(env.Map(vars))
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(cfg, m, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	return do(h, httptest.NewRequest("GET", path, nil))
}

func TestRoutes(t *testing.T) {
	h := newHandler(t, healthy(), nil)
	for path, want := range map[string]struct {
		status         int
		kind, contains string
	}{
		"/":                          {200, "text/html; charset=utf-8", "<title>Simple Bookstore App</title>"},
		"/index.html":                {200, "text/html; charset=utf-8", "http://details:9080"},
		"/health":                    {200, "text/html; charset=utf-8", "Product page is healthy"},
		"/productpage":               {200, "text/html; charset=utf-8", "<title>Simple Bookstore App</title>"},
		"/api/v1/products":           {200, "application/json", `"title":"The Comedy of Errors"`},
		"/api/v1/products/0":         {200, "application/json", detailsJSON},
		"/api/v1/products/0/reviews": {200, "application/json", reviewsJSON},
		"/api/v1/products/0/ratings": {200, "application/json", ratingsJSON},
		"/static/bookinfo.css":       {200, "text/css; charset=utf-8", "--star-red"},
		"/static/":                   {404, "", ""},
		"/static/none":               {404, "", ""},
		"/login":                     {405, "", ""},
		"/nothing":                   {404, "", ""},
		"/metrics":                   {200, "text/plain; version=0.0.4; charset=utf-8", "# TYPE request_result_total counter"},
	} {
		w := get(h, path)
		if w.Code != want.status || want.kind != "" && w.Header().Get("Content-Type") != want.kind || !strings.Contains(w.Body.String(), want.contains) {
			t.Errorf("%s: %d %q\n%.300s", path, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	}
}

func TestPageShowsBookAndReviews(t *testing.T) {
	body := get(newHandler(t, healthy(), nil), "/productpage").Body.String()
	for _, want := range []string{
		"The Comedy of Errors", "by William Shakespeare", "1595", "PublisherA", "1234567890",
		"A &lt;b&gt;joy&lt;/b&gt;", `data-color="red"`, `aria-label="5 of 5 stars, red"`,
		"Ratings service is currently unavailable", "<code>reviews-v3-abc-12</code>", "<code>east</code>", `chip-v3`, `id="sign-in-button"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("page lacks %q", want)
		}
	}
}

func TestFaultsOnThePage(t *testing.T) {
	m := healthy()
	m.answers["details"] = fixed(555, "")
	m.answers["reviews"] = fixed(200, "[]")
	w := get(newHandler(t, m, nil), "/productpage")
	for _, want := range []string{"Error fetching product details!", "Sorry, product details are currently unavailable for this book.", "<code>555</code>", "Error fetching product reviews!"} {
		if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%d, page lacks %q", w.Code, want)
		}
	}
}

// TestTimeouts: reviews are tried twice for 3 s, the others once.
func TestTimeouts(t *testing.T) {
	for path, want := range map[string]struct {
		service string
		tries   int
		took    time.Duration
		status  int
	}{
		"/api/v1/products/0":         {"details", 1, 3 * time.Second, 500},
		"/api/v1/products/0/reviews": {"reviews", 2, 6 * time.Second, 500},
		"/api/v1/products/0/ratings": {"ratings", 1, 3 * time.Second, 500},
		"/productpage":               {"reviews", 2, 6 * time.Second, 200},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &mesh{}
			h := newHandler(t, m, nil)
			start := time.Now()
			w := get(h, path)
			sorry := "Sorry, product " + want.service + " are currently unavailable for this book."
			if took := time.Since(start); took != want.took || w.Code != want.status || !strings.Contains(w.Body.String(), sorry) {
				t.Errorf("%s: %d after %v\n%.200s", path, w.Code, took, w.Body)
			}
			if n := len(m.called(want.service)); n != want.tries {
				t.Errorf("%s: %d tries", path, n)
			}
			metric := fmt.Sprintf("request_result_total{destination_app=%q,response_code=\"500\"} %d\n", want.service, want.tries)
			if got := get(h, "/metrics").Body.String(); !strings.Contains(got, metric) {
				t.Errorf("metrics lack %q:\n%s", metric, got)
			}
		})
	}
}

func TestStatusIsPassedOnAndSecondTryCounts(t *testing.T) {
	m := healthy()
	m.answers["ratings"] = fixed(503, "")
	first := true
	m.answers["reviews"] = func(*http.Request) (int, string) {
		if first {
			first = false
			return 503, ""
		}
		return 200, reviewsJSON
	}
	h := newHandler(t, m, nil)
	if w := get(h, "/api/v1/products/0/ratings"); w.Code != 503 || w.Body.String() != `{"error":"Sorry, product ratings are currently unavailable for this book."}` {
		t.Errorf("ratings: %d %s", w.Code, w.Body)
	}
	if w := get(h, "/api/v1/products/0/reviews"); w.Code != 200 {
		t.Errorf("reviews: %d", w.Code)
	}
}

func TestFlood(t *testing.T) {
	m := healthy()
	get(newHandler(t, m, map[string]string{"FLOOD_FACTOR": "50"}), "/productpage")
	if n := len(m.called("reviews")); n != 51 {
		t.Errorf("%d calls of reviews, want 51", n)
	}
	if _, err := LoadConfig(env.Map(map[string]string{"FLOOD_FACTOR": "many"})); err == nil {
		t.Error("FLOOD_FACTOR=many must be refused")
	}
}

func TestAddresses(t *testing.T) {
	m := healthy()
	m.answers["d.prod.svc"] = fixed(200, detailsJSON)
	h := newHandler(t, m, map[string]string{"DETAILS_HOSTNAME": "d", "DETAILS_SERVICE_PORT": "80", "SERVICES_DOMAIN": "prod.svc"})
	get(h, "/api/v1/products/a%20b")
	if calls := m.called("d.prod.svc"); len(calls) != 1 || calls[0].URL.String() != "http://d.prod.svc:80/details/a%20b" {
		t.Errorf("called %v", calls)
	}
}

func login(h http.Handler, name, referer string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "http://shop.test/login", strings.NewReader(url.Values{"username": {name}, "passwd": {"x"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Referer", referer)
	return do(h, r)
}

func TestSession(t *testing.T) {
	m := healthy()
	h := newHandler(t, m, nil)
	w := login(h, " jason ", "http://shop.test/productpage?u=test")
	if w.Code != 302 || w.Header().Get("Location") != "/productpage?u=test" {
		t.Fatalf("login: %d %v", w.Code, w.Header())
	}
	cookie := w.Result().Cookies()[0]
	if cookie.Name != "session" || !cookie.HttpOnly {
		t.Errorf("cookie %v", cookie)
	}
	page := func(c *http.Cookie) string {
		r := httptest.NewRequest("GET", "/productpage", nil)
		r.AddCookie(c)
		r.Header.Set("End-User", "mallory") // a browser must not choose it
		r.Header.Set("X-Request-Id", "42")
		r.Header.Set("X-B3-Traceid", "80f198ee56343ba8")
		return do(h, r).Body.String()
	}
	if body := page(cookie); !strings.Contains(body, "jason") || !strings.Contains(body, "Sign out") {
		t.Error("the page does not show who is signed in")
	}
	for _, service := range []string{"details", "reviews"} {
		got := m.called(service)[0].Header
		if got.Get("End-User") != "jason" || got.Get("X-Request-Id") != "42" || got.Get("X-B3-Traceid") != "80f198ee56343ba8" || got.Get("Cookie") == "" {
			t.Errorf("headers for %s: %v", service, got)
		}
	}

	forged := *cookie
	_, mac, _ := strings.Cut(cookie.Value, ".")
	forged.Value = "cm9vdA." + mac
	if page(&forged); m.called("reviews")[1].Header.Get("End-User") != "" {
		t.Error("a forged session was believed")
	}

	w = get(h, "/logout")
	if c := w.Result().Cookies()[0]; w.Code != 302 || c.MaxAge >= 0 || w.Header().Get("Location") != "/productpage" {
		t.Errorf("logout: %d %v", w.Code, w.Header())
	}
}

func TestLoginRefusals(t *testing.T) {
	h := newHandler(t, healthy(), nil)
	for _, name := range []string{"", "a\r\nb", strings.Repeat("x", 65), "\xff"} {
		if w := login(h, name, ""); w.Code != 400 || len(w.Result().Cookies()) != 0 {
			t.Errorf("name %q: %d", name, w.Code)
		}
	}
	for referer, want := range map[string]string{
		"http://evil.test/x":          "/productpage",
		"http://shop.test//evil.test": "/evil.test",
		"":                            "/productpage",
		"http://shop.test/":           "/",
	} {
		if got := login(h, "jason", referer).Header().Get("Location"); got != want {
			t.Errorf("referer %q: sent to %q, want %q", referer, got, want)
		}
	}
}

func TestAssetCaching(t *testing.T) {
	h := newHandler(t, healthy(), nil)
	page := get(h, "/productpage").Body.String()
	_, rest, _ := strings.Cut(page, `href="static/bookinfo.css`)
	query, _, _ := strings.Cut(rest, `"`)
	if cc := get(h, "/static/bookinfo.css"+query).Header().Get("Cache-Control"); !strings.Contains(cc, "immutable") {
		t.Errorf("address from the page (%s): %s", query, cc)
	}
	if cc := get(h, "/static/bookinfo.css?v=old").Header().Get("Cache-Control"); cc != "no-cache" {
		t.Errorf("another version: %s", cc)
	}
}
