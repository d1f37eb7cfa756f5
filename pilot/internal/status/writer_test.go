package status

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

func status(name, content string) registry.Status {
	s := registry.Status{GroupVersionKind: schema.GroupVersionKind{Group: "g.io", Version: "v1", Kind: "Thing"}, Namespace: "ns", Name: name}
	if content != "" {
		s.Content = json.RawMessage(content)
	}
	return s
}

func conditions(accepted, other string) string {
	return `{"conditions": [{"type": "Accepted", "status": "` + accepted + `", "lastTransitionTime": null}, {"type": "Other", "status": "` + other + `", "lastTransitionTime": null}]}`
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, time.Minute, what, ok, nil)
}

func run(t *testing.T, w *Writer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Files appear, keep the time of what did not change, also over a restart, and go with their objects.
func TestWriter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "status")
	var day atomic.Int64
	now := func() time.Time { return time.Date(2030, 1, int(day.Load()), 0, 0, 0, 0, time.UTC) }
	file := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, "thing.g.io", "ns", name+".json"))
		return string(data)
	}
	day.Store(1)
	w := New(dir, slog.New(slog.DiscardHandler), now)
	stop := run(t, w)
	w.Changed([]registry.Status{status("a", conditions("True", "True")), status("b", conditions("True", "True"))})
	until(t, "both files", func() bool { return strings.Contains(file("a"), `"apiVersion": "g.io/v1"`) && file("b") != "" })
	day.Store(2)
	w.Changed([]registry.Status{status("a", conditions("False", "True"))})
	until(t, "the change", func() bool {
		return strings.Contains(file("a"), "2030-01-02") && strings.Contains(file("a"), "2030-01-01")
	})
	if n := len(w.Documents()); n != 2 {
		t.Errorf("%d documents", n)
	}
	stop()

	day.Store(3)
	w = New(dir, slog.New(slog.DiscardHandler), now)
	stop = run(t, w)
	w.Changed([]registry.Status{status("a", conditions("False", "False"))})
	until(t, "the change after a restart", func() bool {
		return strings.Contains(file("a"), "2030-01-03") && strings.Contains(file("a"), "2030-01-02")
	})
	until(t, "what went meanwhile is removed", func() bool { return file("b") == "" })
	w.Changed([]registry.Status{status("a", "")})
	until(t, "removed", func() bool { return file("a") == "" && len(w.Documents()) == 0 })
	stop()
}
