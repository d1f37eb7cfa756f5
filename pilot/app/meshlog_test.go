package app

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// lockedBuffer is written by the control plane while the test reads it.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestAccessLogSettingsWithoutEffectAreLogged(t *testing.T) {
	dir, mesh := t.TempDir(), t.TempDir()
	write(t, mesh, "mesh.yaml", "enableEnvoyAccessLogService: true\n")
	var log lockedBuffer
	startWith(t, dir, func(cfg *Config) {
		cfg.MeshConfigFile = mesh + "/mesh.yaml"
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	logged := func(text string) func() bool { return func() bool { return strings.Contains(log.String(), text) } }
	for _, step := range []struct {
		mesh string
		want string
	}{{"", "files only"}, {"accessLogFile: /x\naccessLogEncoding: JSON\naccessLogFormat: text\n", "not a JSON object"}} {
		if step.mesh != "" {
			write(t, mesh, "mesh.yaml", step.mesh)
		}
		wait.Until(t, patience, fmt.Sprintf("%q is in the log", step.want), logged(step.want), log.String)
	}
	if !logged("part of the mesh configuration has no effect")() {
		t.Error(log.String())
	}
}
