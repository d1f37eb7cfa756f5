package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The tunnels that are compared.
const (
	isthmus = "isthmus"
	xnet    = "xnet"
)

// testbed is the app and, for each kind of tunnel, two proxies before it.
type testbed struct {
	app     *child
	tunnels map[string]*tunnel
}

// tunnel is a pair of proxies.
type tunnel struct{ client, server *child }

// newTestbed starts the processes. Proxies write CPU profiles into the directory profiles, unless that is "".
func newTestbed(ctx context.Context, profiles string) (b *testbed, err error) {
	b = &testbed{tunnels: make(map[string]*tunnel)}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	near, far, err := newIdentities()
	if err != nil {
		return nil, err
	}
	if b.app, err = startChild(ctx, roleApp, "", setup{}); err != nil {
		return b, err
	}
	profile := func(kind, role string) string {
		if profiles == "" {
			return ""
		}
		return filepath.Join(profiles, kind+"-"+role+".pprof")
	}
	for _, kind := range []string{isthmus, xnet} {
		t := &tunnel{}
		b.tunnels[kind] = t
		if t.server, err = startChild(ctx, roleServer, kind, setup{Identity: far, Next: b.app.addr, Profile: profile(kind, roleServer)}); err != nil {
			return b, err
		}
		if t.client, err = startChild(ctx, roleClient, kind, setup{Identity: near, Expect: far.URI, Next: t.server.addr, Profile: profile(kind, roleClient)}); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (b *testbed) close() {
	for _, t := range b.tunnels {
		t.client.stop()
		t.server.stop()
	}
	b.app.stop()
}

// addr is where the load connects to.
func (t *tunnel) addr() string { return t.client.addr }

// cpu is the time that both proxies have used.
func (t *tunnel) cpu() (time.Duration, error) {
	client, err := t.client.ask("cpu")
	server, err2 := t.server.ask("cpu")
	return time.Duration(client + server), errors.Join(err, err2)
}

// memory of each proxy, in bytes.
func (t *tunnel) memory() (client, server int64, err error) {
	client, err = t.client.ask("memory")
	server, err2 := t.server.ask("memory")
	return client, server, errors.Join(err, err2)
}

// child is a running process of the test bed.
type child struct {
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func startChild(ctx context.Context, role, kind string, s setup) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, self, childArg, role, kind)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", role, err)
	}
	if err := json.NewEncoder(c.in).Encode(s); err != nil {
		c.stop()
		return nil, fmt.Errorf("set the %s up: %w", role, err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("the %s %s does not start: %w", kind, role, err)
	}
	c.addr = strings.TrimSpace(line)
	return c, nil
}

// ask sends a line and returns the number that comes back.
func (c *child) ask(what string) (int64, error) {
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		return 0, err
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("ask a child for %s: %w", what, err)
	}
	return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
}

// stop ends the process, which goes when its standard input ends. A nil child is not there.
func (c *child) stop() {
	if c == nil {
		return
	}
	c.in.Close()
	timer := time.AfterFunc(5*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	_ = c.cmd.Wait()
}
