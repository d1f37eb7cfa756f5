package why

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// serve accepts connections and does something with each, until the test ends.
func serve(t *testing.T, with func(net.Conn)) (host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var open []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			with(c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, c := range open {
			c.Close()
		}
	})
	host, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// TestConnector runs the client with each of the programs that a container may have, and with none.
func TestConnector(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"bash", "curl", ""} {
		path := t.TempDir()
		if tool != "" {
			program, err := exec.LookPath(tool)
			if err != nil {
				continue // what this machine does not have
			}
			if err := os.Symlink(program, filepath.Join(path, tool)); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			connects(t, sh, path, tool)
		})
	}
}

func connects(t *testing.T, sh, path, tool string) {
	const open = "open"
	for name, c := range map[string]struct {
		with func(net.Conn)
		want func(code int, stdout string) bool
	}{
		open:     {func(net.Conn) {}, func(code int, _ string) bool { return code == 28 }},
		"closed": {func(c net.Conn) { c.Close() }, func(code int, stdout string) bool { return code == 0 && stdout == "" }},
		"reset": {func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() }, func(code int, stdout string) bool {
			return code != 28 && code != answered && code != 127 && stdout == ""
		}},
		"talks": {func(c net.Conn) { _, _ = c.Write([]byte("hello\n")); c.Close() }, func(code int, stdout string) bool { return code == answered || stdout != "" }},
	} {
		host, port := serve(t, c.with)
		seconds := "60" // more than a busy machine needs
		if name == open {
			seconds = "1"
		}
		cmd := exec.Command(sh, "-c", connector, "probe", host, port, seconds)
		cmd.Env = []string{"PATH=" + path}
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // its code is looked at
		code := cmd.ProcessState.ExitCode()
		if tool == "" {
			if code != 127 || !strings.Contains(stderr.String(), "none of bash, curl") {
				t.Errorf("without a program: %d %s", code, stderr.String())
			}
			continue
		}
		if !c.want(code, stdout.String()) {
			t.Errorf("%s: exit code %d, %q, %s", name, code, stdout.String(), stderr.String())
		}
	}
}

// TestBecameOf: what the end of a client means, beside what was predicted.
func TestBecameOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code            int
		asked           bool
		outcome         string
		agrees, reached bool
	}{
		{28, false, Allowed, true, true},
		{28, true, Allowed, false, false},
		{28, true, Broken, true, false},
		{0, true, Denied, true, false},
		{0, false, Allowed, false, false},
		{answered, true, Allowed, true, true},
		{answered, false, Denied, false, true},
		{7, false, Broken, true, false},
	} {
		r := &Report{Probe: &Probe{}, Verdict: Verdict{Outcome: c.outcome}}
		r.becameOf(c.code, "", c.asked)
		if r.Probe.Agrees != c.agrees || r.Probe.Reached != c.reached {
			t.Errorf("%+v: %+v", c, r.Probe)
		}
	}
}
