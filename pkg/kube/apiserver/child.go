package apiserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	c := &child{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		_ = cmd.Wait() // how it ended is of no interest: it is killed in the end
	}()
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
