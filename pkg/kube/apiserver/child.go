package apiserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// child is a process that this one started.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// spawn starts a program whose output is appended to a file.
func spawn(program, log string, args ...string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = filepath.Dir(log)
	// A test that is killed takes its servers along; one that is interrupted stops them itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	c := &child{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread that started the process ends, and tests of network namespaces end threads.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		defer close(c.ended)
		_ = cmd.Wait() // how it ended is of no interest: it is killed in the end
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return c, nil
}

// kill ends the process and waits for that. A nil child has ended.
func (c *child) kill() {
	if c == nil {
		return
	}
	_ = c.cmd.Process.Kill() // fails when it has ended
	<-c.ended
}

// PIDs of etcd and kube-apiserver, for what measures them.
func (s *Server) PIDs() (etcd, api int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.cmd.Process.Pid, s.api.cmd.Process.Pid
}
