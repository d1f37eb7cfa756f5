package reviews

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/internal/env"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answering(status int, body string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func get(h http.Handler, path string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func load(t *testing.T, vars map[string]string) Config {
	t.Helper()
	cfg, err := LoadConfig(env.Map(vars), "reviews-pod")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// ratingsOf returns each review's rating as JSON.
func ratingsOf(t *testing.T, w *httptest.ResponseRecorder) []string {
	t.Helper()
	var got struct {
		ID, PodName, ClusterName string
		Reviews                  []struct {
			Reviewer, Text string
			Rating         json.RawMessage
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if got.ID != "0" || got.PodName != "reviews-pod" || got.ClusterName != "null" || len(got.Reviews) != 2 {
		t.Errorf("answer %s", w.Body)
	}
	var out []string
	for i, r := range got.Reviews {
		if r.Reviewer != []string{"Reviewer1", "Reviewer2"}[i] || r.Text == "" {
			t.Errorf("review %+v", r)
		}
		out = append(out, string(r.Rating))
	}
	return out
}

func TestVersions(t *testing.T) {
	const unavailable = `{"error":"Ratings service is currently unavailable"}`
	const fine = `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":0}}`
	for _, c := range []struct {
		name, version string
		ratings       http.RoundTripper
		want          [2]string
	}{
		{"no ratings", "v1", nil, [2]string{"", ""}},
		{"black", "v2", answering(200, fine), [2]string{`{"stars":5,"color":"black"}`, `{"stars":0,"color":"black"}`}},
		{"red", "v3", answering(200, fine), [2]string{`{"stars":5,"color":"red"}`, `{"stars":0,"color":"red"}`}},
		{"one is missing", "v3", answering(200, `{"ratings":{"Reviewer1":1}}`), [2]string{`{"stars":1,"color":"red"}`, unavailable}},
		{"refused", "v2", answering(500, ""), [2]string{unavailable, unavailable}},
		{"garbage", "v2", answering(200, `{"ratings":7}`), [2]string{unavailable, unavailable}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := New(load(t, map[string]string{"SERVICE_VERSION": c.version}), c.ratings, slog.New(slog.DiscardHandler))
			got := ratingsOf(t, get(h, "/reviews/0", http.Header{}))
			if got[0] != c.want[0] || got[1] != c.want[1] {
				t.Errorf("ratings %q, want %q", got, c.want)
			}
		})
	}
}

// TestRatingsTimeout holds the clash of time-outs that fault injection shows.
func TestRatingsTimeout(t *testing.T) {
	for version, want := range map[string]time.Duration{"v2": 10 * time.Second, "v3": 2500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			silent := roundTrip(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
			start := time.Now()
			w := get(New(load(t, map[string]string{"SERVICE_VERSION": version}), silent, slog.New(slog.DiscardHandler)), "/reviews/0", http.Header{})
			if took := time.Since(start); took != want || !strings.Contains(w.Body.String(), "currently unavailable") {
				t.Errorf("%s: after %v: %s", version, took, w.Body)
			}
		})
	}
}

func TestHeadersReachRatings(t *testing.T) {
	var got http.Header
	var url string
	h := New(load(t, map[string]string{"SERVICE_VERSION": "v2", "RATINGS_HOSTNAME": "r", "SERVICES_DOMAIN": "prod.svc", "RATINGS_SERVICE_PORT": "80"}),
		roundTrip(func(r *http.Request) (*http.Response, error) {
			got, url = r.Header, r.URL.String()
			return answering(200, "{}")(r)
		}), slog.New(slog.DiscardHandler))
	get(h, "/reviews/0", http.Header{"End-User": {"jason"}, "Traceparent": {"00-1"}, "X-Other": {"no"}})
	if url != "http://r.prod.svc:80/ratings/0" || got.Get("End-User") != "jason" || got.Get("Traceparent") != "00-1" || got.Get("X-Other") != "" {
		t.Errorf("called %s with %v", url, got)
	}
}

func TestOtherRoutes(t *testing.T) {
	h := New(load(t, nil), nil, slog.New(slog.DiscardHandler))
	if w := get(h, "/health", http.Header{}); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"status":"Reviews is healthy"}` {
		t.Errorf("/health: %d %s", w.Code, w.Body)
	}
	if w := get(h, "/reviews/x", http.Header{}); w.Code != 404 {
		t.Errorf("/reviews/x: %d", w.Code)
	}
}

func TestLoadConfig(t *testing.T) {
	for _, c := range []struct {
		vars    map[string]string
		ratings bool
		color   string
	}{
		{nil, false, "black"},
		{map[string]string{"ENABLE_RATINGS": "true"}, true, "black"},
		{map[string]string{"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}, true, "red"},
		{map[string]string{"SERVICE_VERSION": "v3", "ENABLE_RATINGS": "false"}, false, "red"},
		{map[string]string{"SERVICE_VERSION": "v4", "ENABLE_RATINGS": "true", "STAR_COLOR": "gold"}, true, "gold"},
	} {
		if got := load(t, c.vars); got.Ratings != c.ratings || got.StarColor != c.color || got.RatingsURL != "http://ratings:9080" {
			t.Errorf("%v: %+v", c.vars, got)
		}
	}
	if _, err := LoadConfig(env.Map(map[string]string{"SERVICE_VERSION": "v4"}), ""); err == nil {
		t.Error("an unknown version that does not say what it is must be refused")
	}
}
