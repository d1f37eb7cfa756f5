package debug_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pilot/internal/debug"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// TestScopes: log levels are shown and set one by one, and nonsense changes nothing.
func TestScopes(t *testing.T) {
	t.Parallel()
	_, levels := telemetry.NewLogger(io.Discard, telemetry.Options{})
	handler := debug.Scopes(levels)
	ask := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if code, text := ask("GET", "/scopej/", ""); code != http.StatusOK || strings.Count(text, `"output_level": "info"`) < 10 {
		t.Errorf("%d %s", code, text)
	}
	if code, text := ask("PUT", "/scopej/ads", `{"name":"ads","output_level":"debug"}`); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	if code, text := ask("PUT", "/scopej/default", `{"output_level":"warn"}`); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	for path, want := range map[string]string{"ads": "debug", "ca": "warn", "default": "warn"} {
		if code, text := ask("GET", "/scopej/"+path, ""); code != http.StatusOK || !strings.Contains(text, `"output_level": "`+want+`"`) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	for _, wrong := range []struct {
		path, body string
		code       int
	}{{"none", `{"output_level":"debug"}`, http.StatusNotFound}, {"ads", `{"output_level":"loud"}`, http.StatusBadRequest}, {"ads", "x", http.StatusBadRequest}} {
		if code, _ := ask("PUT", "/scopej/"+wrong.path, wrong.body); code != wrong.code {
			t.Errorf("%v: %d", wrong, code)
		}
	}
	if code, _ := ask("GET", "/scopej/none", ""); code != http.StatusNotFound {
		t.Errorf("a scope that is not there: %d", code)
	}
	if got := levels.String(); got != "warn,ads=debug" {
		t.Errorf("levels %s", got)
	}
}
