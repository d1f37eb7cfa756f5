// Package daemon runs a private docker daemon: its data, sockets and logs are in one folder, and nothing of a daemon
// that the machine may have is touched.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/runcshim"
)

// maxSocketPath is how long a path of a unix socket can be (sun_path), less what containerd appends.
const maxSocketPath = 107 - len("/run/containerd/containerd-debug.sock")

// Daemon is a docker daemon of ours in a folder.
type Daemon struct {
	Dir string
	Log *slog.Logger
}

// Host is the daemon's address, as DOCKER_HOST takes it.
func (d Daemon) Host() string { return "unix://" + filepath.Join(d.Dir, "docker.sock") }

func (d Daemon) pidFile() string { return filepath.Join(d.Dir, "docker.pid") }

// LacksResource reports whether this machine cannot give CAP_SYS_RESOURCE, so that privileged containers need the
// wrapper around runc.
func LacksResource() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	bounding, err := runcshim.ParseBounding(string(status))
	return !(runcshim.Limits{Bounding: bounding}).Has(runcshim.SysResource), err
}

// Reachable reports whether a docker daemon answers at the address; "" is the client's default.
func Reachable(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}")
	if host != "" {
		cmd.Env = append(cmd.Environ(), "DOCKER_HOST="+host)
	}
	return cmd.Run() == nil
}

// Start makes the daemon run; it stays after this process. wrapper is the runtime to use instead of runc, or "".
func (d Daemon) Start(ctx context.Context, wrapper string) error {
	if Reachable(ctx, d.Host()) {
		return nil
	}
	if len(d.Dir) > maxSocketPath {
		return fmt.Errorf("the path %s is too long for the sockets of a docker daemon (%d characters, at most %d): use a checkout with a shorter path", d.Dir, len(d.Dir), maxSocketPath)
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return err
	}
	logFile := filepath.Join(d.Dir, "dockerd.log")
	if d.alive() { // a second one would take the socket away from it
		return d.await(ctx, nil, logFile)
	}
	// Left over from a daemon that was killed: its number may be another process's by now.
	if err := os.Remove(d.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	args := []string{
		"--host", d.Host(),
		"--data-root", filepath.Join(d.Dir, "data"),
		"--exec-root", filepath.Join(d.Dir, "run"),
		"--pidfile", d.pidFile(),
	}
	if wrapper != "" {
		args = append(args, "--add-runtime", "isthmus="+wrapper, "--default-runtime", "isthmus")
	}
	logs, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer logs.Close()
	cmd := exec.Command("dockerd", args...)
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start dockerd: %w (package docker.io of Debian)", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return d.await(ctx, exited, logFile)
}

// alive reports whether the daemon of the pid file runs, if only too slowly to be reachable.
func (d Daemon) alive() bool {
	text, err := os.ReadFile(d.pidFile())
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || gone(pid) {
		return false
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.Contains(strings.Split(string(args), "\x00"), d.Host())
}

// await waits until the daemon answers.
func (d Daemon) await(ctx context.Context, exited <-chan error, logFile string) error {
	deadline := time.After(time.Minute)
	for !Reachable(ctx, d.Host()) {
		select {
		case err := <-exited:
			return fmt.Errorf("dockerd ended (%w): see %s", err, logFile)
		case <-deadline:
			return fmt.Errorf("dockerd does not answer after a minute: see %s", logFile)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	d.Log.Info("docker daemon runs", "host", d.Host())
	return nil
}

// Stop ends the daemon if it runs, by the number in its own pid file.
func (d Daemon) Stop(ctx context.Context) error {
	text, err := os.ReadFile(d.pidFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("pid file of the docker daemon: %w", err)
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != "dockerd" {
		return os.Remove(d.pidFile())
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop dockerd: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		// The signal 0 only asks; a zombie that nobody reaps still answers, so ask /proc for its state as well.
		if gone(pid) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("dockerd (pid %d) does not stop: %w", pid, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}
