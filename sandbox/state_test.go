package sandbox_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

// What is not a sandbox's is never removed, and no process that it names is ended.
func TestForeignDirectories(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("work of years"), 0o600); err != nil {
		t.Fatal(err)
	}
	sleep := exec.CommandContext(t.Context(), "sleep", "3600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(sleep.Process.Pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	named, err := json.Marshal(map[string]any{"pid": sleep.Process.Pid, "start": fields[19]})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "supervisor.json"), named, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Down(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "not the state of a sandbox") {
		t.Errorf("down: %v", err)
	}
	if _, err := sandbox.Up(t.Context(), sandbox.Options{StateDir: dir, BinDir: ".", Profile: sandbox.ProfileNone}); err == nil {
		t.Error("a sandbox in a directory of somebody else's")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Down(t.Context(), link); err == nil {
		t.Error("down by way of a link")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	if err := sleep.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process that the directory named: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"../../etc", "a/b", "A", "-", "x.y"} {
		if _, err := sandbox.Up(t.Context(), sandbox.Options{Name: name, BinDir: ".", Profile: sandbox.ProfileNone}); err == nil || !strings.Contains(err.Error(), "name ") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A supervisor whose parent has gone at once is found, and ended.
func TestOrphanedSupervisor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".isthmus-sandbox"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"stateDir": dir, "nodes": 1, "binDir": dir, "profile": "none"})
	if err != nil {
		t.Fatal(err)
	}
	orphan := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), self, "sandbox-supervisor", string(config))
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	first := orphan()
	eventually(t, "it says who it is", func() bool { _, err := sandbox.Connect(dir); return err == nil })
	if err := orphan().Wait(); err == nil {
		t.Error("a second one lives beside it")
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = first.Wait() }()
	if err := sandbox.Down(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	<-done
	if left := leftovers(dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	// One that comes too late finds nothing to write into.
	if err := orphan().Wait(); err == nil {
		t.Error("it lives without a state")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it has made its directory again")
	}
}
