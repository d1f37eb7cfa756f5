// Package planeproc runs a control plane, ours or Istio's, as a process beside an API server.
package planeproc

import (
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
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
)

// patience is how long a start may take; istiod takes a second, on a busy machine tens of them.
const patience = 5 * time.Minute

// Command is how a control plane is started: Env is added to what all get.
type Command struct {
	Program string
	Env     []string
}

// Process is a control plane that runs.
type Process struct {
	// PID of the process.
	PID int
	// GRPC, HTTP and Monitoring are host:port, all in plaintext.
	GRPC, HTTP, Monitoring string

	cmd   *exec.Cmd
	ended chan struct{}
	log   string
}

// Start runs the program and returns when it is ready. Its kubeconfig, and its log, are files in dir that no other process has.
func Start(ctx context.Context, c Command, dir string, config *rest.Config) (*Process, error) {
	dir, err := os.MkdirTemp(dir, "plane-")
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := apiserver.WriteKubeconfig(kubeconfig, config); err != nil {
		return nil, err
	}
	addrs, err := freeAddresses(5)
	if err != nil {
		return nil, err
	}
	p := &Process{GRPC: addrs[0], HTTP: addrs[1], Monitoring: addrs[2], ended: make(chan struct{}), log: filepath.Join(dir, "log")}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(c.Program, "discovery", "--kubeconfig", kubeconfig, "--grpcAddr", addrs[0], "--httpAddr", addrs[1], "--monitoringAddr", addrs[2],
		"--secureGRPCAddr", addrs[3], "--httpsAddr", addrs[4], "--profile", "--keepaliveMaxServerConnectionAge", "24h")
	p.cmd.Env = slices.Concat(p.cmd.Environ(), []string{"POD_NAME=istiod-0", "POD_NAMESPACE=istio-system"}, c.Env)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.PID = p.cmd.Process.Pid
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // it is killed in the end
	}()
	if err := p.awaitReady(ctx); err != nil {
		p.Stop()
		return nil, fmt.Errorf("start the control plane: %w\n%s", err, p.Output())
	}
	return p, nil
}

// freeAddresses are of loopback, and free at this moment.
func freeAddresses(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at once, so that they differ
		addrs[i] = l.Addr().String()
	}
	return addrs, nil
}

func (p *Process) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it takes too long"))
	defer cancel()
	for {
		if _, err := Get(ctx, p.HTTP, "/ready"); err == nil {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-p.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Get returns the answer to a request, if it is 200.
func Get(ctx context.Context, addr, path string) ([]byte, error) {
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

// Ended is closed when the process has ended, for whatever reason.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Output is the end of the log.
func (p *Process) Output() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

// Stop ends the process. Again is allowed.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill() // fails when it has ended
	<-p.ended
}
