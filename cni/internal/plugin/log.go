package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
)

const (
	// logFile is beside the agent's sockets, and one of before with another ending.
	logFile = "istio-cni.log"
	// maxLog is how long the file gets, in bytes.
	maxLog = 10 << 20
	// logTimeout bounds what a command waits for its lines to be taken.
	logTimeout = time.Second
	// scope is the plugin's name in its lines.
	scope = "cni-plugin"
	// levelOff is above everything that is logged.
	levelOff = slog.Level(1 << 16)
)

// journal keeps what one command has to say until it ends. Standard output is the command's result, and never written to.
type journal struct {
	*slog.Logger
	lines bytes.Buffer
	dir   string // of the agent's sockets
	stack io.Writer
}

// newJournal returns an empty one.
func newJournal(c *Config, stderr io.Writer) *journal {
	j := &journal{dir: filepath.Dir(c.Socket), stack: stderr}
	j.Logger = slog.New(slog.NewJSONHandler(&j.lines, &slog.HandlerOptions{
		Level: levelOf(c.LogLevel),
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.LevelKey {
				a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
			}
			return a
		},
	})).With("logger", scope)
	return j
}

// levelOf reads the level of the network configuration; what it does not know is info.
func levelOf(name string) slog.Level {
	switch strings.ToLower(name) {
	case "none", "off":
		return levelOff
	case "trace", "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "fatal":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// outcome logs how a command has ended.
func (j *journal) outcome(command string, r pluginapi.Request, start time.Time, err error) {
	attrs := []any{
		"pod", r.PodNamespace + "/" + r.PodName, "uid", r.PodUID, "container", r.ContainerID, "netns", r.Netns,
		"duration", time.Since(start).Round(time.Microsecond).String(),
	}
	if len(r.IPs) > 0 {
		attrs = append(attrs, "ips", strings.Join(r.IPs, ","))
	}
	if err != nil {
		j.Error("CNI "+command+" failed", append(attrs, "error", err.Error())...)
		return
	}
	j.Info("CNI "+command+" done", attrs...)
}

// flush gives the lines to the agent and to the file. It fails nothing; what nobody takes goes to the container runtime.
func (j *journal) flush() {
	if j.lines.Len() == 0 {
		return
	}
	sendErr := j.send()
	if writeErr := appendLog(j.dir, j.lines.Bytes(), maxLog); sendErr != nil && writeErr != nil {
		_, _ = j.stack.Write(j.lines.Bytes())
	}
}

// send gives the lines to the agent.
func (j *journal) send() error {
	lines := strings.Split(strings.TrimSuffix(j.lines.String(), "\n"), "\n")
	body, err := json.Marshal(lines)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	response, err := post(ctx, filepath.Join(j.dir, pluginapi.LogSocket), pluginapi.PathLog, body)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// post sends a request over a Unix socket. The caller closes the answer's body.
func post(ctx context.Context, socket, path string, body []byte) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return client.Do(request)
}

// appendLog writes to the file in dir, in one piece. When it would get longer than limit, it becomes the one of before, once, whatever
// number of plugins find that out at the same time; those that do not get to rename it write to what they have opened.
func appendLog(dir string, lines []byte, limit int64) error {
	path := filepath.Join(dir, logFile)
	file, err := openLog(path)
	if err != nil {
		return err
	}
	if rotate(file, path, int64(len(lines)), limit) {
		file.Close()
		if file, err = openLog(path); err != nil {
			return err
		}
	}
	_, err = file.Write(lines)
	return errors.Join(err, file.Close())
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
}

// rotate tells whether the file must be opened again. The lock is that of the opened file, and goes with it.
func rotate(file *os.File, path string, more, limit int64) bool {
	opened, err := file.Stat()
	if err != nil || opened.Size()+more <= limit || unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	named, err := os.Stat(path)
	if err != nil || !os.SameFile(opened, named) {
		return true // another one has been quicker
	}
	return os.Rename(path, path+".1") == nil
}
