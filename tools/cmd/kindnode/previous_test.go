package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// repository makes one with two commits of a file.
func repository(t *testing.T) *suite {
	t.Helper()
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("init", "-q")
	for _, text := range []string{"before", "now"} {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		git("add", "file")
		git("commit", "-q", "-m", text)
	}
	return &suite{options: &options{repo: dir, dir: t.TempDir(), log: slog.New(slog.DiscardHandler)}}
}

func TestExportOfACommit(t *testing.T) {
	s := repository(t)
	commit, err := s.git(t.Context(), "rev-parse", "--verify", "HEAD~1^{commit}")
	if err != nil || len(commit) != 40 {
		t.Fatal(commit, err)
	}
	dir := t.TempDir()
	if err := s.export(t.Context(), commit, dir); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "before" {
		t.Errorf("%q, %v", got, err)
	}
}

// More than a pipe holds is left unread when nothing can be unpacked.
func TestExportToNowhere(t *testing.T) {
	s := repository(t)
	if err := os.WriteFile(filepath.Join(s.repo, "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.git(t.Context(), "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-a", "-m", "large"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.export(t.Context(), "HEAD", filepath.Join(t.TempDir(), "none")) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("unpacked into a folder that is not there")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it hangs")
	}
}

func TestNoVersionBefore(t *testing.T) {
	s := repository(t)
	for _, from := range []string{"", "-"} {
		s.upgradeFrom = from
		if dir, err := s.makePrevious(t.Context()); dir != "" || err != nil || len(s.previousImages()) > 0 {
			t.Errorf("%q: %s, %v", from, dir, err)
		}
	}
	s.upgradeFrom = "HEAD~9"
	if _, err := s.makePrevious(t.Context()); err == nil || !strings.Contains(err.Error(), "-upgrade-from -") {
		t.Errorf("a commit that is not there: %v", err)
	}
}

func TestPruneImages(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"pilot-amd64.tar", "pilot.json", "bin/pilot"} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := pruneImages(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "pilot-amd64.tar" {
		t.Errorf("%v, %v", left, err)
	}
}
