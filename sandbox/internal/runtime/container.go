package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/images"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/rootfs"
)

const (
	// maxBackoff of a container that fails again and again; one that ran longer than steady starts anew at once.
	maxBackoff = 30 * time.Second
	steady     = time.Minute
	// outputDelay is how long a process's descendants may hold its output open after it has ended.
	outputDelay = time.Second
)

// container is one container's life.
type container struct {
	// immutable
	pod     *pod
	spec    *corev1.Container
	volumes *volumes
	policy  corev1.RestartPolicy
	started chan struct{} // closed when it has first started

	mu       sync.Mutex // guards what follows
	process  *process
	ready    bool
	begun    bool // the startup probe has passed
	restarts int32
	waiting  string // why it does not run
	message  string
	exited   *corev1.ContainerStateTerminated
	over     bool // it will not run again
}

// process is one run of a container.
type process struct {
	cmd   *exec.Cmd
	mount *os.File
	pidns *os.File
	start time.Time
	done  chan struct{} // closed when it has ended
}

func (p *pod) newContainer(spec *corev1.Container, volumes *volumes, policy corev1.RestartPolicy) *container {
	return &container{pod: p, spec: spec, volumes: volumes, policy: policy, started: make(chan struct{}), waiting: "ContainerCreating"}
}

// run starts the container, again and again as its policy says, until the pod ends.
func (c *container) run(ctx context.Context) {
	defer func() {
		c.mu.Lock()
		c.over = true
		c.mu.Unlock()
	}()
	backoff := time.Second
	for {
		begin := time.Now()
		code, err := c.once(ctx)
		select {
		case <-c.pod.ending:
			return
		default:
		}
		if ctx.Err() != nil {
			return
		}
		if c.policy == corev1.RestartPolicyNever || c.policy == corev1.RestartPolicyOnFailure && code == 0 && err == nil {
			return
		}
		if time.Since(begin) > steady {
			backoff = time.Second
		}
		c.mu.Lock()
		c.waiting = "CrashLoopBackOff"
		if err != nil {
			c.waiting, c.message = "CreateContainerError", err.Error()
		}
		c.mu.Unlock()
		c.pod.report()
		select {
		case <-time.After(backoff):
		case <-c.pod.ending:
			return
		case <-ctx.Done():
			return
		}
		backoff = min(2*backoff, maxBackoff)
		c.mu.Lock()
		c.restarts++
		c.mu.Unlock()
	}
}

// once runs the container's program to its end, or until the pod ends.
func (c *container) once(ctx context.Context) (code int, err error) {
	p, err := c.start()
	if err != nil {
		c.pod.runtime.cfg.Log.Warn("container not started", "pod", c.pod.name(), "container", c.spec.Name, "error", err)
		return 1, err
	}
	probing, stopProbing := context.WithCancel(ctx)
	var probes sync.WaitGroup
	probes.Go(func() { c.probe(probing, p) })
	select {
	case <-p.done:
	case <-c.pod.ending:
		c.terminate(ctx, p, c.pod.gracePeriod())
	case <-ctx.Done():
		c.terminate(ctx, p, 0)
	}
	stopProbing()
	<-p.done
	probes.Wait()
	p.mount.Close()
	p.pidns.Close()
	code = p.cmd.ProcessState.ExitCode()
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	c.mu.Lock()
	c.process, c.ready, c.begun = nil, false, false
	c.exited = &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Reason: reason, StartedAt: metav1.NewTime(p.start), FinishedAt: metav1.Now(), Message: p.cmd.ProcessState.String(),
	}
	c.mu.Unlock()
	c.pod.report()
	return code, nil
}

// start starts the program in namespaces and a file system of its own.
func (c *container) start() (*process, error) {
	program, err := c.pod.runtime.cfg.Images.Resolve(c.spec.Image)
	if err != nil {
		return nil, err
	}
	argv := images.Command(program, c.spec)
	if len(argv) == 0 {
		return nil, fmt.Errorf("image %q has no command of its own, and the container names none", c.spec.Image)
	}
	env, err := c.environment(program)
	if err != nil {
		return nil, err
	}
	for i := range argv {
		argv[i] = expand(argv[i], env)
	}
	binds, err := c.volumes.binds(c.spec)
	if err != nil {
		return nil, err
	}
	scratch := filepath.Join(c.pod.dir, "root-"+c.spec.Name)
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	mount, err := rootfs.New(rootfs.Spec{
		Scratch: scratch,
		Files: map[string]rootfs.File{
			"/etc/resolv.conf": {Data: c.pod.resolvConf()}, "/etc/hosts": {Data: c.pod.hosts()}, "/etc/hostname": {Data: []byte(c.pod.object.Name + "\n")},
		},
		Binds: append([]rootfs.Bind{c.pod.runtime.cfg.Programs}, binds...),
	})
	if err != nil {
		return nil, err
	}
	log, err := openLog(c.pod.runtime.LogFile(c.pod.object, c.spec.Name))
	if err != nil {
		mount.Close()
		return nil, err
	}
	p, err := c.spawn(argv, env, mount, log)
	if err != nil {
		mount.Close()
		log.Close()
		return nil, err
	}
	c.mu.Lock()
	c.process, c.waiting, c.message = p, "", ""
	c.begun = c.spec.StartupProbe == nil
	c.ready = c.begun && c.spec.ReadinessProbe == nil
	if c.restarts == 0 {
		close(c.started)
	}
	c.mu.Unlock()
	c.pod.report()
	return p, nil
}

func (c *container) spawn(argv []string, env map[string]string, mount *os.File, log *logFile) (*process, error) {
	p := &process{mount: mount, start: time.Now(), done: make(chan struct{})}
	set := ns.Set{Net: c.pod.net, UTS: c.pod.uts, Mount: mount}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	begun, begins, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer begun.Close()
	err = set.Do(func() error {
		// Looked for in the container's file system.
		if _, err := exec.LookPath(argv[0]); err != nil {
			return err
		}
		p.cmd = initCommand(self, begins, argv)
		p.cmd.Env, p.cmd.Dir = list(env), workDir(c.spec.WorkingDir)
		p.cmd.Stdout, p.cmd.Stderr = log, log
		p.cmd.WaitDelay = outputDelay
		// The first process of its own PID namespace: with it, everything that it has started ends.
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC, Setsid: true}
		return p.cmd.Start()
	})
	begins.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	if p.pidns, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", p.cmd.Process.Pid)); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", argv[0], err), p.cmd.Process.Kill(), p.cmd.Wait())
	}
	// Until the program runs, or has failed to, /proc is not the container's: nothing is to be executed in it, and no signal sent.
	_, _ = io.Copy(io.Discard, begun)
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its state says how it ended
		log.Close()
	}()
	return p, nil
}

func workDir(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}

// terminate asks the process to end, and ends it when the grace period is over.
func (c *container) terminate(ctx context.Context, p *process, grace time.Duration) {
	if grace > 0 {
		// Who asks may go away: the grace period is the process's.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		c.preStop(ctx, p)
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // if it is gone, done is closed
		select {
		case <-p.done:
			return
		case <-ctx.Done():
		case <-c.pod.runtime.ctx.Done():
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// preStop does what the container wants done before it is asked to end. It is part of the grace period.
func (c *container) preStop(ctx context.Context, p *process) {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PreStop == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-p.done:
		case <-c.pod.runtime.ctx.Done():
		case <-ctx.Done():
		}
	}()
	var err error
	switch hook := c.spec.Lifecycle.PreStop; {
	case hook.Exec != nil:
		var code int
		if code, err = c.pod.runtime.execIn(ctx, c, p, hook.Exec.Command, Streams{}); err == nil && code != 0 {
			err = fmt.Errorf("exit code %d", code)
		}
	case hook.HTTPGet != nil:
		err = c.ask(ctx, p, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: hook.HTTPGet}})
	case hook.Sleep != nil:
		select {
		case <-time.After(time.Duration(hook.Sleep.Seconds) * time.Second):
		case <-ctx.Done():
		}
	}
	select {
	case <-p.done: // so it cannot have gone well, and does not matter
		return
	default:
	}
	if err != nil {
		c.pod.runtime.cfg.Log.Warn("preStop of a container failed", "pod", c.pod.name(), "container", c.spec.Name, "error", err)
	}
}

func (c *container) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := c.begun
	s := corev1.ContainerStatus{Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, Ready: c.ready, RestartCount: c.restarts, Started: &begun}
	switch {
	case c.process != nil:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.process.start.Truncate(time.Second))}
	case c.over && c.exited != nil:
		s.State.Terminated = c.exited
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: c.waiting, Message: c.message}
	}
	if c.exited != nil && s.State.Terminated == nil {
		s.LastTerminationState.Terminated = c.exited
	}
	return s
}

func (c *container) finished() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

func (c *container) succeeded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exited != nil && c.exited.ExitCode == 0
}

func (c *container) lastError() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exited != nil {
		return c.exited.Message
	}
	return c.message
}

// environment is the container's: the image's, then its own variables, in order.
func (c *container) environment(program images.Program) (map[string]string, error) {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "HOSTNAME": c.pod.object.Name, "LANG": "C.UTF-8",
	}
	for _, pair := range program.Env {
		key, value, _ := strings.Cut(pair, "=")
		env[key] = value
	}
	for _, from := range c.spec.EnvFrom {
		values, err := c.volumes.envFrom(from)
		if err != nil {
			return nil, err
		}
		for key, value := range values {
			env[from.Prefix+key] = value
		}
	}
	for _, v := range c.spec.Env {
		value := expand(v.Value, env)
		if v.ValueFrom != nil {
			var err error
			if value, err = c.volumes.valueFrom(v.ValueFrom, c.spec); err != nil {
				return nil, fmt.Errorf("env %s: %w", v.Name, err)
			}
		}
		env[v.Name] = value
	}
	return env, nil
}

func list(env map[string]string) []string {
	var out []string
	for key, value := range env {
		out = append(out, key+"="+value)
	}
	slices.Sort(out)
	return out
}

// expand replaces $(NAME) by the variable, if there is one; $$ stands for $.
func expand(text string, env map[string]string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			out.WriteByte(text[i])
			continue
		}
		switch text[i+1] {
		case '$':
			out.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i:], ')')
			value, ok := "", false
			if end > 0 {
				value, ok = env[text[i+2:i+end]]
			}
			if !ok {
				out.WriteByte('$')
				continue
			}
			out.WriteString(value)
			i += end
		default:
			out.WriteByte('$')
		}
	}
	return out.String()
}
