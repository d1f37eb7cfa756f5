package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/images"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

// Streams of a command; nil is empty, or nowhere.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec runs a command in a container, the pod's first if it is not named, and returns the command's exit code.
func (r *Runtime) Exec(ctx context.Context, namespace, name, container string, argv []string, streams Streams) (int, error) {
	p, ok := r.find(namespace, name)
	if !ok {
		return 0, fmt.Errorf("pod %s/%s does not run", namespace, name)
	}
	p.mu.Lock()
	containers := p.containers
	p.mu.Unlock()
	for _, c := range containers {
		if container != "" && c.spec.Name != container {
			continue
		}
		c.mu.Lock()
		process := c.process
		c.mu.Unlock()
		if process == nil {
			return 0, fmt.Errorf("container %s of pod %s/%s does not run", c.spec.Name, namespace, name)
		}
		return r.execIn(ctx, c, process, argv, streams)
	}
	return 0, fmt.Errorf("pod %s/%s has no container %q that runs", namespace, name, container)
}

// execIn runs a command beside a process, in the same namespaces and environment.
func (r *Runtime) execIn(ctx context.Context, c *container, p *process, argv []string, streams Streams) (int, error) {
	if len(argv) == 0 {
		return 0, errors.New("no command")
	}
	program, err := r.cfg.Images.Resolve(c.spec.Image)
	if err != nil {
		program = images.Program{}
	}
	env, err := c.environment(program)
	if err != nil {
		return 0, err
	}
	var cmd *exec.Cmd
	set := ns.Set{Net: c.pod.net, UTS: c.pod.uts, PID: p.pidns, Mount: p.mount}
	err = set.Do(func() error {
		path, err := exec.LookPath(argv[0])
		if err != nil {
			return err
		}
		cmd = exec.CommandContext(ctx, path, argv[1:]...)
		cmd.Args[0] = argv[0]
		cmd.Env, cmd.Dir = list(env), workDir(c.spec.WorkingDir)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.Stdin, streams.Stdout, streams.Stderr
		cmd.WaitDelay = time.Second
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		// With the command ends what it has started.
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		return cmd.Start()
	})
	if err != nil {
		return 0, fmt.Errorf("run %s in pod %s: %w", argv[0], c.pod.name(), err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}
