package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

func TestTextLineHasTheFieldsColumns(t *testing.T) {
	var out bytes.Buffer
	log, _ := telemetry.NewLogger(&out, telemetry.Options{})
	telemetry.Scoped(log, "access").Info("connection complete",
		"src.addr", netip.MustParseAddrPort("10.0.0.1:4711"), "src.workload", "web \"1\"", "bytes_sent", 12,
		"duration", "12ms", "error", errors.New("denied"), slog.Group("g", "k", true))
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\tinfo\taccess\tconnection complete\t` +
		`src\.addr=10\.0\.0\.1:4711 src\.workload="web \\"1\\"" bytes_sent=12 duration="12ms" error="denied" g\.k=true\n$`)
	if !want.Match(out.Bytes()) {
		t.Errorf("line %q", out.String())
	}
}

func TestMessageStaysOnOneLine(t *testing.T) {
	var out bytes.Buffer
	log, _ := telemetry.NewLogger(&out, telemetry.Options{})
	log.Info("a\nb", "k", "c\nd")
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("%d lines: %q", got, out.String())
	}
}

func TestJSONLineParses(t *testing.T) {
	var out bytes.Buffer
	log, _ := telemetry.NewLogger(&out, telemetry.Options{JSON: true})
	log.With("node", "n1").WithGroup("x").Warn("hello\n", "n", 1.5, "e", errors.New(`say "no"`), "d", 3*time.Second,
		"a", netip.MustParseAddr("::1"), "m", map[string]int{"k": 1})
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	for key, want := range map[string]any{
		"level": "warn", "scope": "default", "message": "hello\n", "node": "n1", "x.n": 1.5, "x.e": `say "no"`, "x.d": "3s", "x.a": "::1",
	} {
		if got[key] != want {
			t.Errorf("%s = %v, want %v", key, got[key], want)
		}
	}
	if !strings.HasPrefix(out.String(), `{"level":"warn","time":"`) {
		t.Errorf("order of %s", out.String())
	}
}

func TestLevelsByScope(t *testing.T) {
	var out bytes.Buffer
	log, levels := telemetry.NewLogger(&out, telemetry.Options{Level: slog.LevelInfo})
	access := telemetry.Scoped(log, "access")
	access.Debug("no")
	if err := levels.Set("access=debug,warn"); err != nil {
		t.Fatal(err)
	}
	access.Debug("yes")
	log.Info("no")
	if got := levels.String(); got != "warn,access=debug" {
		t.Errorf("levels %q", got)
	}
	if err := levels.Set("error,dns=loud"); err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("bad level: %v", err)
	}
	if got := levels.String(); got != "warn,access=debug" {
		t.Errorf("a refused change changed the levels to %q", got)
	}
	levels.Reset()
	log.Info("yes")
	if strings.Contains(out.String(), "no") || strings.Count(out.String(), "yes") != 2 {
		t.Errorf("written %q", out.String())
	}
}
