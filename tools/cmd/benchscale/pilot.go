package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
)

// command is how a control plane is started: env is added to what all get.
type command struct {
	program string
	env     []string
}

// pilot is the control plane as a process.
type pilot struct {
	cmd                  *exec.Cmd
	ended                chan struct{}
	log                  string
	grpc, http, monitors string
}

// startPilot runs the program and returns when it is ready.
func startPilot(ctx context.Context, c command, dir string, config *rest.Config) (*pilot, error) {
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := apiserver.WriteKubeconfig(kubeconfig, config); err != nil {
		return nil, err
	}
	addrs := make([]string, 5)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at once, so that they differ
		addrs[i] = l.Addr().String()
		l.Close()
	}
	p := &pilot{ended: make(chan struct{}), log: filepath.Join(dir, "pilot.log"), grpc: addrs[0], http: addrs[1], monitors: addrs[2]}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(c.program, "discovery", "--kubeconfig", kubeconfig, "--grpcAddr", addrs[0], "--httpAddr", addrs[1], "--monitoringAddr", addrs[2],
		"--secureGRPCAddr", addrs[3], "--httpsAddr", addrs[4], "--profile", "--keepaliveMaxServerConnectionAge", "24h")
	p.cmd.Env = slices.Concat(os.Environ(), []string{"POD_NAME=istiod-0", "POD_NAMESPACE=istio-system"}, c.env)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // it is killed in the end
	}()
	if err := p.awaitReady(ctx); err != nil {
		p.stop()
		return nil, fmt.Errorf("start the control plane: %w\n%s", err, p.output())
	}
	return p, nil
}

func (p *pilot) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		if _, err := get(ctx, p.http, "/ready"); err == nil {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-p.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return errTimeout
		}
	}
}

func get(ctx context.Context, addr, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, response.Status)
	}
	return body, err
}

func (p *pilot) output() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

func (p *pilot) stop() {
	_ = p.cmd.Process.Kill() // fails when it has ended
	<-p.ended
}

// cpu is what the process used so far.
func (p *pilot) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // user and system, in hundredths of a second
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// rss returns the resident memory, and the most it ever was, in MiB.
func (p *pilot) rss() (now, peak float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %g kB", &kib); n == 1 {
			now = kib / 1024
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %g kB", &kib); n == 1 {
			peak = kib / 1024
		}
	}
	return now, peak, nil
}

// profile writes one of the process's profiles to a file, when a directory is given.
func (p *pilot) profile(ctx context.Context, path, dir, file string) error {
	if dir == "" {
		return nil
	}
	data, err := get(ctx, p.http, path)
	if err != nil {
		data, err = get(ctx, p.monitors, path)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), data, 0o600)
}

// heap collects garbage and returns what is left, in MiB.
func (p *pilot) heap(ctx context.Context) (float64, error) {
	profile, err := get(ctx, p.http, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		profile, err = get(ctx, p.monitors, "/debug/pprof/heap?gc=1&debug=1")
	}
	if err != nil {
		return 0, err
	}
	scanner := bufio.NewScanner(strings.NewReader(string(profile)))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var bytes float64
		if n, _ := fmt.Sscanf(scanner.Text(), "# HeapAlloc = %g", &bytes); n == 1 {
			return bytes / (1 << 20), nil
		}
	}
	return 0, errors.New("no heap in the profile")
}
