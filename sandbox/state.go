package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// state.go is about the state directory: whose it is, and which process uses it.

// process says which one the supervisor is.
type process struct {
	PID int `json:"pid"`
	// Start is the time at which it started, in ticks since boot: PIDs are used again.
	Start string `json:"start"`
}

// sayWho writes which process this one is, before it makes anything: whoever started it may be gone by then, and it must be
// found to be ended. It is called while /proc is still that of the PID namespace outside.
func sayWho(stateDir string) error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(self)
	if err != nil {
		return fmt.Errorf("/proc/self is %q", self)
	}
	begin, err := startOf(pid)
	if err != nil {
		return err
	}
	text, err := json.Marshal(process{PID: pid, Start: begin})
	if err != nil {
		return err
	}
	// One only: two that are started at once would take each other's state away. The link makes the file appear whole.
	path := filepath.Join(stateDir, pidFile)
	if err := os.WriteFile(path+"."+self, text, 0o644); err != nil {
		return err
	}
	if err := os.Link(path+"."+self, path); err != nil {
		return fmt.Errorf("another one was started at the same time: %w", err)
	}
	return os.Remove(path + "." + self)
}

// claim makes an empty state directory, in place of that of an earlier sandbox.
func claim(ctx context.Context, dir string) error {
	if err := discard(ctx, dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), []byte("The state of a sandbox of the mesh. \"istioctl sandbox down\" takes it away.\n"), 0o644)
}

// ours tells whether there is a state directory; what is there and is not a sandbox's is an error.
func ours(dir string) (bool, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%s is not a directory: name another one", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	if _, err := os.Lstat(filepath.Join(dir, marker)); err != nil && len(entries) > 0 {
		return false, fmt.Errorf("%s is not the state of a sandbox (it has no file %s): name another directory, or empty it", dir, marker)
	}
	return true, nil
}

// discard takes a state directory away, and ends whoever uses it; what is not a sandbox's it leaves alone.
func discard(ctx context.Context, dir string) error {
	gone := filepath.Clean(dir) + ".gone"
	for _, d := range []string{gone, dir} {
		there, err := ours(d)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		if err := end(ctx, d); err != nil {
			return err
		}
		// A supervisor that has just been started writes who it is: before this, and it is found, or after, and it fails.
		if d != gone {
			if err := os.Rename(d, gone); err != nil {
				return err
			}
			if err := end(ctx, gone); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
	}
	return nil
}

// end ends the supervisor of a state directory, and with it all that the sandbox runs.
func end(ctx context.Context, dir string) error {
	p, err := readProcess(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.alive() {
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", p.PID, err)
		}
	}
	for p.alive() {
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", p.PID, ctx.Err())
		}
	}
	return nil
}

func readProcess(dir string) (process, error) {
	var p process
	text, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(text, &p)
}

// startOf reads a process's state and start time; a zombie has ended.
func startOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name in parentheses may hold anything; after it come the state, and 19 fields later the start time.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

func (p process) alive() bool {
	begin, err := startOf(p.PID)
	return err == nil && begin == p.Start
}
