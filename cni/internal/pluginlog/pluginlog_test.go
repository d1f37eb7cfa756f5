package pluginlog_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"github.com/isthmus-mesh/isthmus/cni/internal/pluginlog"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// say sends lines as the plugin does and returns what is logged.
func say(t *testing.T, levels string, asJSON bool, body string) (status int, logged string) {
	t.Helper()
	var out bytes.Buffer
	log, l := telemetry.NewLogger(&out, telemetry.Options{Level: slog.LevelInfo, JSON: asJSON})
	if err := l.Set(levels); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	pluginlog.Handler(log).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/log", strings.NewReader(body)))
	return w.Code, out.String()
}

func array(t *testing.T, lines ...string) string {
	t.Helper()
	body, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestLinesAreLogged(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"info","time":"2026-01-02T03:04:05.6Z","logger":"cni-plugin","msg":"CNI ADD done","pod":"shop/web","n":7,"ok":true}`: "2026-01-02T03:04:05.600000Z\tinfo\tcni-plugin\tCNI ADD done\tn=7 ok=true pod=\"shop/web\"\n",
		`{"level":"error","msg":"x","error":"a\nb"}`:           "\terror\tcni-plugin\tx\terror=\"a\\nb\"\n",
		`{"level":"warn","message":"other's"}`:                 "\twarn\tcni-plugin\tother's\n",
		`{"level":"FATAL","msg":"x"}`:                          "\terror\tcni-plugin\tx\n",
		`{"level":"loud","msg":"x"}`:                           "\tinfo\tcni-plugin\tx\tplugin.level=\"loud\"\n",
		`{"level":"off","msg":"x"}`:                            "\tinfo\tcni-plugin\tx\tplugin.level=\"off\"\n",
		`{"msg":"x","scope":"agent","time":"yesterday"}`:       "\tinfo\tcni-plugin\tx\tplugin.time=\"yesterday\" plugin.scope=\"agent\"\n",
		`{"msg":"x","a":{"b":[1,2]},"f":1.5,"z":null}`:         "\tcni-plugin\tx\ta=\"{\\\"b\\\":[1,2]}\" f=1.5 z=\"null\"\n",
		`{"level":3,"msg":["x"]}`:                              "\tinfo\tcni-plugin\t\tplugin.level=3 plugin.msg=\"[\\\"x\\\"]\"\n",
		`not JSON`:                                             "\twarn\tcni-plugin\tnot JSON\n",
		`["an array"]`:                                         "\twarn\tcni-plugin\t[\"an array\"]\n",
		`null`:                                                 "\twarn\tcni-plugin\tnull\n",
		"x\n2026-01-02T03:04:05.000000Z\terror\tagent\tforged": "\twarn\tcni-plugin\tx\\n2026-01-02T03:04:05.000000Z\\terror\\tagent\\tforged\n",
		`{"msg":"x\n2026-01-02\terror\tagent\tforged","k\n\t=":"v","` + "\u009b" + `":"\u001b[2J"}`: "\tcni-plugin\tx\\n2026-01-02\\terror\\tagent\\tforged\tk___=\"v\" _=\"\\x1b[2J\"\n",
	} {
		status, got := say(t, "info", false, array(t, line))
		if status != http.StatusOK || !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %d\n got %q\nwant %q", line, status, got, want)
		}
	}
}

func TestTheAgentsLevelsCount(t *testing.T) {
	body := array(t, `{"level":"debug","msg":"one"}`, `{"level":"info","msg":"two"}`, `{"level":"error","msg":"three"}`)
	for levels, want := range map[string]int{"debug": 3, "info": 2, "info,cni-plugin:error": 1, "error,cni-plugin:debug": 3, "off": 0} {
		if _, got := say(t, levels, false, body); strings.Count(got, "\n") != want {
			t.Errorf("%s: %q", levels, got)
		}
	}
}

func TestWhatIsTooMuchIsBounded(t *testing.T) {
	_, got := say(t, "info", false, array(t, strings.Repeat("é", 20<<10), `{"msg":"`+strings.Repeat("x", 20<<10)+`"}`))
	if len(got) > 40<<10 || strings.Count(got, "truncated=true") != 2 || strings.Count(got, "\n") != 2 {
		t.Errorf("%d bytes are logged", len(got))
	}
	many := map[string]any{"msg": "x"}
	for i := range 100 {
		many["key"+strings.Repeat("k", i)] = i
	}
	line, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	if _, got := say(t, "info", false, array(t, string(line))); strings.Count(got, "=") != 33 || !strings.Contains(got, "plugin.left_out=68") {
		t.Errorf("%q", got)
	}
	if status, got := say(t, "info", false, array(t, strings.Repeat("x", 2<<20))); status != http.StatusBadRequest || !strings.Contains(got, "too large") {
		t.Errorf("%d %q", status, got)
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	for _, body := range []string{"", "{", `{"a":1}`, `[1]`, `"x"`} {
		if status, got := say(t, "info", false, body); status != http.StatusBadRequest || !strings.Contains(got, "cannot be read") {
			t.Errorf("%q: %d %q", body, status, got)
		}
	}
	if status, got := say(t, "info", false, "[]"); status != http.StatusOK || got != "" {
		t.Errorf("nothing: %d %q", status, got)
	}
	w := httptest.NewRecorder()
	pluginlog.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/log", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"level":"info","time":"2026-01-02T03:04:05.6Z","logger":"cni-plugin","msg":"CNI ADD done","pod":"shop/web","n":7}`)
	f.Add(`{"msg":"a\nb","k\n":{"x":[null]},"level":9,"f":1e999}`)
	f.Add("text\x1b[2J\nmore")
	f.Fuzz(func(t *testing.T, line string) {
		e := pluginlog.Parse(line)
		control := func(r rune) bool { return !unicode.IsPrint(r) }
		if strings.ContainsFunc(e.Message, control) {
			t.Errorf("message %q", e.Message)
		}
		if len(e.Attrs) > 40 {
			t.Errorf("%d attributes", len(e.Attrs))
		}
		for _, a := range e.Attrs {
			if a.Key == "" || len(a.Key) > 80 || strings.ContainsFunc(a.Key, func(r rune) bool { return control(r) || r == ' ' || r == '=' || r == '"' }) {
				t.Errorf("key %q", a.Key)
			}
		}
		body, err := json.Marshal([]string{line})
		if err != nil {
			t.Fatal(err)
		}
		for _, asJSON := range []bool{false, true} {
			if _, got := say(t, "trace", asJSON, string(body)); strings.Count(got, "\n") != 1 || asJSON && !json.Valid([]byte(got)) {
				t.Errorf("json %t: %q", asJSON, got)
			}
		}
	})
}
