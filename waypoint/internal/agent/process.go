package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

// killAfter is how long Envoy may take to end after SIGTERM.
const killAfter = 5 * time.Second

// ProcessConfig says how Envoy is run.
type ProcessConfig struct {
	Binary, Dir                 string
	LogLevel, ComponentLogLevel string
	Concurrency                 int
	// DrainTime is how long Envoy drains connections of listeners that go away.
	DrainTime time.Duration
	Output    io.Writer
	Log       *slog.Logger
}

// Process is a running Envoy.
type Process struct {
	command *exec.Cmd
	log     *slog.Logger
	done    chan struct{} // closed when it has ended
	err     error         // how; set before done is closed
}

// Start writes the bootstrap and starts Envoy with it.
func Start(bootstrap *bootstrapv3.Bootstrap, c ProcessConfig) (*Process, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: "  "}.Marshal(bootstrap)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	path := filepath.Join(c.Dir, "envoy-rev.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	p := &Process{command: exec.Command(c.Binary, arguments(path, c)...), log: c.Log, done: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = c.Output, c.Output
	// Envoy ends with us, whatever happens, and does not see the terminal's signals: it is told when its time has come.
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread that started the process ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.command.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.command.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start Envoy: %w (give its path by --envoy)", err)
	}
	c.Log.Info("Envoy started", "pid", p.command.Process.Pid, "bootstrap", path)
	return p, nil
}

func arguments(path string, c ProcessConfig) []string {
	out := []string{
		"-c", path, "--disable-hot-restart", "--drain-time-s", strconv.Itoa(max(int(c.DrainTime/time.Second), 1)), "--drain-strategy", "immediate",
		"--file-flush-interval-msec", "1000",
	}
	level := c.LogLevel
	// Istio gives both in one flag: "warning,misc:error".
	level, rest, found := strings.Cut(level, ",")
	components := c.ComponentLogLevel
	if found && components == "" {
		components = rest
	}
	if level != "" {
		out = append(out, "-l", level)
	}
	if components != "" {
		out = append(out, "--component-log-level", components)
	}
	if c.Concurrency > 0 {
		out = append(out, "--concurrency", strconv.Itoa(c.Concurrency))
	}
	return out
}

// Done is closed when Envoy has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how it ended. It may be called after Done.
func (p *Process) Err() error {
	if p.err != nil {
		return fmt.Errorf("the process Envoy ended: %w", p.err)
	}
	return errors.New("the process Envoy ended")
}

// Stop tells Envoy to end, waits, and kills it when it does not.
func (p *Process) Stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(killAfter)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-timer.C:
	}
	p.log.Warn("Envoy did not end; killing it", "after", killAfter)
	_ = p.command.Process.Kill()
	<-p.done
}

// Door is Envoy's admin port.
type Door struct {
	// URL is http://host:port.
	URL string
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 20

// get returns the body of a 200.
func (d Door) get(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, d.URL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("admin port of Envoy: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("admin port of Envoy: %s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}

// Ready is nil when Envoy has a configuration and serves.
func (d Door) Ready(ctx context.Context) error {
	text, err := d.get(ctx, http.MethodGet, "/stats?filter="+"%5E(cluster_manager%5C.cds%5C.update_success%7Clistener_manager%5C.lds%5C.update_success%7Clistener_manager%5C.workers_started)%24")
	if err != nil {
		return err
	}
	for _, name := range []string{"cluster_manager.cds.update_success", "listener_manager.lds.update_success", "listener_manager.workers_started"} {
		if !positive(string(text), name) {
			return fmt.Errorf("Envoy: %s is 0", name) //nolint:staticcheck // a name
		}
	}
	_, err = d.get(ctx, http.MethodGet, "/ready")
	return err
}

func positive(stats, name string) bool {
	for line := range strings.Lines(stats) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+": "); ok {
			return value != "0"
		}
	}
	return false
}

// Metrics are Envoy's, in the text format.
func (d Door) Metrics(ctx context.Context) ([]byte, error) {
	return d.get(ctx, http.MethodGet, "/stats/prometheus")
}

// Drain tells clients to go elsewhere while everything is still accepted.
func (d Door) Drain(ctx context.Context) error {
	_, err := d.get(ctx, http.MethodPost, "/drain_listeners?graceful&skip_exit")
	return err
}

// Active is how many downstream connections are open on listeners of the configuration.
func (d Door) Active(ctx context.Context) (int, error) {
	text, err := d.get(ctx, http.MethodGet, "/stats?filter=%5Elistener%5C..*downstream_cx_active%24")
	if err != nil {
		return 0, err
	}
	total := 0
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.HasPrefix(name, "listener.admin.") || strings.Contains(name, "worker_") {
			continue
		}
		if n, err := strconv.Atoi(value); err == nil {
			total += n
		}
	}
	return total, nil
}
