package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
)

// echoCommand is the argument with which this program is a process that sends back what comes, on so many listeners that it is started
// with; the next argument is their number.
const echoCommand = "echo"

// echoMain reports whether the arguments are those of such a process, which it then is, until its standard input ends.
func echoMain(args []string) (handled bool) {
	if len(args) != 3 || args[1] != echoCommand {
		return false
	}
	n, err := strconv.Atoi(args[2])
	for i := 0; i < n && err == nil; i++ {
		var l net.Listener
		file := os.NewFile(uintptr(3+i), "listener")
		if l, err = net.FileListener(file); err == nil {
			go serveEcho(l)
		}
		file.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak: the process that answers:", err)
		return true
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

// echo is a process that serves listeners, so that of each open connection it has one end, and this process the other: a process may have
// so many descriptors only.
type echo struct {
	process *exec.Cmd
	stdin   io.Closer
}

// startEcho leaves the listeners to a new process. They are closed here.
func startEcho(ctx context.Context, listeners []net.Listener) (*echo, error) {
	defer closeListeners(listeners)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Its life is that of its standard input, however this one ends.
	process := exec.CommandContext(context.WithoutCancel(ctx), self, echoCommand, strconv.Itoa(len(listeners)))
	process.Stderr = os.Stderr
	stdin, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	for _, l := range listeners {
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", l.Addr(), err)
		}
		defer file.Close()
		process.ExtraFiles = append(process.ExtraFiles, file)
	}
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("start the process that answers: %w", err)
	}
	return &echo{process: process, stdin: stdin}, nil
}

func closeListeners(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// end ends the process, and what it serves.
func (e *echo) end() error {
	e.stdin.Close()
	return e.process.Wait()
}
