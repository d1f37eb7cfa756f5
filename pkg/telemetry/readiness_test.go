package telemetry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadiness(t *testing.T) {
	r := NewReadiness(http.StatusServiceUnavailable, "state", "proxy")
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"at the start", func() {}, "503 not ready, pending: state, proxy"},
		{"one is done", func() { r.Done("state") }, "503 not ready, pending: proxy"},
		{"all is done", func() { r.Done("proxy") }, "200 ready"},
		{"done again", func() { r.Done("proxy") }, "200 ready"},
		{"blocked, twice", func() { r.Block("the end"); r.Block("the end") }, "503 not ready, pending: the end"},
		{"taken back", func() { r.Done("the end") }, "200 ready"},
	} {
		step.do()
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if got := strings.TrimSpace(w.Result().Status[:4] + w.Body.String()); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
}
