package ratings

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/internal/env"
)

func TestRoutes(t *testing.T) {
	h := New(Config{Version: VersionV1}, slog.New(slog.DiscardHandler))
	// In order: the POST is seen by the GET after it.
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/health", "", 200, `{"status":"Ratings is healthy"}`},
		{"GET", "/ratings/0", "", 200, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"POST", "/ratings/0", `{"Reviewer1":1}`, 200, `{"id":0,"ratings":{"Reviewer1":1}}`},
		{"GET", "/ratings/0", "", 200, `{"id":0,"ratings":{"Reviewer1":1}}`},
		{"GET", "/ratings/1", "", 200, `{"id":1,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"GET", "/ratings/x", "", 400, `{"error":"please provide numeric product ID"}`},
		{"POST", "/ratings/x", "{}", 400, `{"error":"please provide numeric product ID"}`},
		{"POST", "/ratings/0", "{", 400, `{"error":"please provide valid ratings JSON"}`},
		{"GET", "/other", "", 404, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || c.want != "" && strings.TrimSpace(w.Body.String()) != c.want {
			t.Errorf("%s %s: %d %s; want %d %s", c.method, c.path, w.Code, w.Body, c.status, c.want)
		}
	}
}

func TestFaultyIsHalfBroken(t *testing.T) {
	for random, want := range map[float64]int{0.49: 503, 0.5: 200} {
		h := newService(newFault(VersionFaulty, time.Now, func() float64 { return random }), slog.New(slog.DiscardHandler))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/ratings/0", nil))
		if w.Code != want {
			t.Errorf("random %v: %d, want %d", random, w.Code, want)
		}
	}
}

func TestDelayed(t *testing.T) {
	for random, want := range map[float64]time.Duration{0.49: 7 * time.Second, 0.5: 0} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			f := newFault(VersionDelayed, time.Now, func() float64 { return random })
			if err := f.inject(t.Context()); err != nil || time.Since(start) != want {
				t.Errorf("random %v: waited %v, %v; want %v", random, time.Since(start), err, want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := f.inject(ctx); want > 0 && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("client gone: %v", err)
			}
		})
	}
}

func TestPeriodicFaults(t *testing.T) {
	for _, c := range []struct {
		version         string
		after           time.Duration
		status, healthy int
	}{
		{VersionUnavailable, 59 * time.Second, 200, 200},
		{VersionUnavailable, 60 * time.Second, 503, 200},
		{VersionUnavailable, 120 * time.Second, 200, 200},
		{VersionUnhealthy, 14 * time.Minute, 200, 200},
		{VersionUnhealthy, 15 * time.Minute, 503, 500},
		{VersionUnhealthy, 30 * time.Minute, 200, 200},
	} {
		now := time.Now()
		h := newService(newFault(c.version, func() time.Time { return now }, nil), slog.New(slog.DiscardHandler))
		now = now.Add(c.after)
		for path, want := range map[string]int{"/ratings/0": c.status, "/health": c.healthy} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != want {
				t.Errorf("%s after %v: %s is %d, want %d", c.version, c.after, path, w.Code, want)
			}
		}
	}
}

func TestLoadConfig(t *testing.T) {
	for _, v := range []string{"", VersionV1, VersionFaulty, VersionDelayed, VersionUnavailable, VersionUnhealthy} {
		if _, err := LoadConfig(env.Map(map[string]string{"SERVICE_VERSION": v})); err != nil {
			t.Errorf("version %q: %v", v, err)
		}
	}
	for key, value := range map[string]string{
		"DB_TYPE": "mysql", "MONGO_DB_URL": "mongodb://db", "MYSQL_DB_HOST": "db", "MYSQL_DB_PORT": "3306",
		"MYSQL_DB_USER": "u", "MYSQL_DB_PASSWORD": "p", "SERVICE_VERSION": "v2",
	} {
		if _, err := LoadConfig(env.Map(map[string]string{key: value})); err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("%s=%s: %v; want an error about the database", key, value, err)
		}
	}
	if _, err := LoadConfig(env.Map(map[string]string{"SERVICE_VERSION": "v9"})); err == nil {
		t.Error("an unknown version must be refused")
	}
}
