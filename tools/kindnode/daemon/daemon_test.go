package daemon

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func testDaemon(t *testing.T) Daemon {
	t.Helper()
	return Daemon{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
}

// The number in a pid file that was left over may be that of a process of somebody else.
func TestStopLeavesOthersAlone(t *testing.T) {
	other := exec.Command("sleep", "3600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- other.Wait() }()
	t.Cleanup(func() {
		if err := other.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-done
	})
	d := testDaemon(t)
	if err := os.WriteFile(d.pidFile(), []byte(strconv.Itoa(other.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.pidFile()); err == nil {
		t.Error("the stale file is still there")
	}
	select {
	case err := <-done:
		t.Fatalf("the other process ended: %v", err)
	default:
	}
}

func TestStopWithoutDaemon(t *testing.T) {
	if err := testDaemon(t).Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartRefusesLongPath(t *testing.T) {
	d := Daemon{Dir: filepath.Join(t.TempDir(), strings.Repeat("long/", 20)), Log: slog.New(slog.DiscardHandler)}
	if err := d.Start(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	if Reachable(t.Context(), testDaemon(t).Host()) {
		t.Error("a socket that does not exist is reachable")
	}
}
