package details

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/samples/internal/env"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func get(h http.Handler, path string, header http.Header) (int, string) {
	r := httptest.NewRequest("GET", path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestRoutes(t *testing.T) {
	h := New(Config{}, nil, slog.New(slog.DiscardHandler))
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/health":    {200, `{"status":"Details is healthy"}`},
		"/details/0": {200, `{"id":0,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`},
		"/details/x": {400, `{"error":"please provide numeric product id"}`},
	} {
		if status, body := get(h, path, http.Header{}); status != want.status || body != want.body {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

const catalogueAnswer = `{"items":[{"volumeInfo":{"authors":["William Shakespeare"],"publishedDate":"2002-01-01",
"printType":"BOOK","pageCount":80,"publisher":"Courier","language":"en","industryIdentifiers":[
{"type":"ISBN_10","identifier":"0486424618"},{"type":"ISBN_13","identifier":"9780486424613"}]}}]}`

func TestExternalCatalogue(t *testing.T) {
	for _, c := range []struct {
		name      string
		plaintext bool
		status    int // of the catalogue; 0: no answer
		body      string
		want      int
		contains  string
	}{
		{"https", false, 200, catalogueAnswer, 200, `"year":"2002-01-01","type":"paperback","pages":80,"publisher":"Courier","language":"English","ISBN-10":"0486424618","ISBN-13":"9780486424613"`},
		{"http", true, 200, catalogueAnswer, 200, `"pages":80`},
		{"refused", false, 429, "", 502, "answered 429"},
		{"no answer", false, 0, "", 502, "no route"},
		{"no such book", false, 200, `{"items":[]}`, 502, "knows no book"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := New(Config{External: true, Plaintext: c.plaintext}, roundTrip(func(r *http.Request) (*http.Response, error) {
				if scheme := map[bool]string{false: "https", true: "http"}[c.plaintext]; r.URL.Scheme != scheme || r.URL.Host != "www.googleapis.com" {
					t.Errorf("asked %s", r.URL)
				}
				if r.Header.Get("X-Request-Id") != "7" || r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
					t.Errorf("headers for the outsider: %v", r.Header)
				}
				if c.status == 0 {
					return nil, errors.New("no route")
				}
				return &http.Response{StatusCode: c.status, Body: io.NopCloser(strings.NewReader(c.body)), Request: r}, nil
			}), slog.New(slog.DiscardHandler))
			status, body := get(h, "/details/0", http.Header{"X-Request-Id": {"7"}, "Authorization": {"Bearer x"}, "Cookie": {"a=b"}})
			if status != c.want || !strings.Contains(body, c.contains) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func TestLoadConfig(t *testing.T) {
	if got := LoadConfig(env.Map(nil)); got != (Config{}) {
		t.Errorf("default: %+v", got)
	}
	got := LoadConfig(env.Map(map[string]string{"ENABLE_EXTERNAL_BOOK_SERVICE": "true", "DO_NOT_ENCRYPT": "true"}))
	if got != (Config{External: true, Plaintext: true}) {
		t.Errorf("v2: %+v", got)
	}
}
