package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginlog"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// listen is the agent's end of log.sock in dir.
func listen(t *testing.T, dir string, handler http.Handler) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(dir, pluginapi.LogSocket))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-done })
}

func journalIn(dir, level string, stderr *bytes.Buffer) *journal {
	return newJournal(&Config{Socket: filepath.Join(dir, "pluginevent.sock"), LogLevel: level}, stderr)
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheLogGoesToTheAgentAndTheFile(t *testing.T) {
	dir := t.TempDir()
	var agent, stderr bytes.Buffer
	log, _ := telemetry.NewLogger(&agent, telemetry.Options{})
	listen(t, dir, pluginlog.Handler(log))
	j := journalIn(dir, "", &stderr)
	request := pluginapi.Request{PodName: "web", PodNamespace: "shop", PodUID: "u1", Netns: "/run/netns/x", ContainerID: "c1", IPs: []string{"10.0.0.1", "fd00::1"}}
	j.Debug("nobody wants to know")
	j.outcome("ADD", request, time.Now(), nil)
	j.outcome("DEL", request, time.Now(), errors.New("line one\nline two"))
	j.flush()
	for _, want := range []string{
		"\tinfo\tcni-plugin\tCNI ADD done\tcontainer=\"c1\" duration=", "ips=\"10.0.0.1,fd00::1\" netns=\"/run/netns/x\" pod=\"shop/web\" uid=\"u1\"\n",
		"\terror\tcni-plugin\tCNI DEL failed\t", "error=\"line one\\nline two\"",
	} {
		if !strings.Contains(agent.String(), want) {
			t.Errorf("the agent's log has no %q:\n%s", want, agent.String())
		}
	}
	file := read(t, filepath.Join(dir, logFile))
	if strings.Count(agent.String(), "\n") != 2 || strings.Count(file, "\n") != 2 || stderr.Len() > 0 {
		t.Errorf("agent:\n%s\nfile:\n%s\nstandard error:\n%s", agent.String(), file, stderr.String())
	}
	for line := range strings.Lines(file) {
		var fields map[string]string
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["logger"] != "cni-plugin" || fields["msg"] == "" || fields["time"] == "" {
			t.Errorf("%v: %s", err, line)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, logFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestTheLogFailsNothing(t *testing.T) {
	t.Run("no agent", func(t *testing.T) {
		dir := t.TempDir()
		var stderr bytes.Buffer
		j := journalIn(dir, "info", &stderr)
		j.Info("said")
		j.flush()
		if file := read(t, filepath.Join(dir, logFile)); !strings.Contains(file, "said") || stderr.Len() > 0 {
			t.Errorf("file %q, standard error %q", file, stderr.String())
		}
	})
	t.Run("nowhere", func(t *testing.T) {
		var stderr bytes.Buffer
		j := journalIn(filepath.Join(t.TempDir(), "none"), "info", &stderr)
		j.Info("said")
		j.flush()
		if !strings.Contains(stderr.String(), "said") {
			t.Errorf("standard error %q", stderr.String())
		}
	})
	t.Run("an agent that refuses, and a link in place of the file", func(t *testing.T) {
		dir := t.TempDir()
		listen(t, dir, http.NotFoundHandler())
		target := filepath.Join(dir, "target")
		if err := os.Symlink(target, filepath.Join(dir, logFile)); err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		j := journalIn(dir, "info", &stderr)
		j.Info("said")
		j.flush()
		if !strings.Contains(stderr.String(), "said") || read(t, target) != "" {
			t.Errorf("standard error %q, target %q", stderr.String(), read(t, target))
		}
	})
	t.Run("an agent that hangs", func(t *testing.T) {
		dir, left := t.TempDir(), make(chan struct{})
		listen(t, dir, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			defer close(left)
			_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client has gone
			<-r.Context().Done()
		}))
		var stderr bytes.Buffer
		j := journalIn(dir, "info", &stderr)
		j.Info("said")
		j.flush() // returns, although there is no answer
		<-left
		if !strings.Contains(read(t, filepath.Join(dir, logFile)), "said") {
			t.Error("nothing in the file")
		}
	})
}

func TestLevels(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"": slog.LevelInfo, "info": slog.LevelInfo, "DEBUG": slog.LevelDebug, "trace": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError,
		"none": levelOff, "loud": slog.LevelInfo,
	} {
		if got := levelOf(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	dir := t.TempDir()
	j := journalIn(dir, "none", nil)
	j.Error("said")
	j.flush()
	if read(t, filepath.Join(dir, logFile)) != "" {
		t.Error("something is logged")
	}
}

// Many plugins at once, with a file that is turned over by each of them now and then: lines stay whole, and only what was turned over
// twice is lost.
func TestTheFileIsTurnedOver(t *testing.T) {
	dir := t.TempDir()
	line := func(writer, n int) string { return fmt.Sprintf("%02d-%04d %s\n", writer, n, strings.Repeat("x", 91)) } // 100 bytes
	const writers, each, limit = 8, 200, 20_000
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				if err := appendLog(dir, []byte(line(w, n)), limit); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, name := range []string{logFile, logFile + ".1"} {
		text := read(t, filepath.Join(dir, name))
		if text == "" || len(text) > limit+writers*100 {
			t.Errorf("%s has %d bytes", name, len(text))
		}
		for l := range strings.Lines(text) {
			if len(l) != 100 || l[len(l)-1] != '\n' {
				t.Errorf("%s has half of a line: %q", name, l)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestOnlyOneTurnsTheFileOver(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, logFile)
	for range 2 {
		if err := appendLog(dir, []byte("0123456789"), 20); err != nil {
			t.Fatal(err)
		}
	}
	busy, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(busy.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := appendLog(dir, []byte("while busy"), 20); err != nil || read(t, path) != "01234567890123456789while busy" || read(t, path+".1") != "" {
		t.Errorf("%v: %q, %q", err, read(t, path), read(t, path+".1"))
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if !rotate(busy, path, 1, 20) || read(t, path+".1") == "" {
		t.Error("a file that has been turned over is turned over again")
	}
	busy.Close()
	if err := appendLog(dir, []byte("next"), 20); err != nil || read(t, path) != "next" {
		t.Errorf("%v: %q", err, read(t, path))
	}
}
