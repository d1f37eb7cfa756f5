package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The tunnels that are compared.
const (
	isthmus  = "isthmus"
	awake    = "isthmus-awake" // none of whose connections ever sleeps
	standard = "crypto-tls"    // isthmus with crypto/tls's records
	xnet     = "xnet"
	direct   = "direct" // TLS from end to end
	splice   = "splice" // two proxies without TLS
	haproxy  = "haproxy"
)

// testbed is the app and, for each kind of tunnel, two proxies before it.
type testbed struct {
	app     *child
	dir     string
	tunnels map[string]*tunnel
}

// tunnel is a pair of proxies, or of ends.
type tunnel struct {
	client, server *child
	kind           string
}

// newTestbed starts the processes. Proxies write CPU profiles where the options say.
func newTestbed(ctx context.Context, o options) (b *testbed, err error) {
	b = &testbed{tunnels: make(map[string]*tunnel)}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "benchl4-"); err != nil {
		return b, err
	}
	near, far, err := newIdentities()
	if err != nil {
		return b, err
	}
	if b.app, err = startChild(ctx, roleApp, "", setup{}); err != nil {
		return b, err
	}
	profile := func(kind, role string) string {
		if o.profiles == "" {
			return ""
		}
		return filepath.Join(o.profiles, kind+"-"+role+".pprof")
	}
	for _, kind := range []string{isthmus, awake, standard, xnet, direct, splice} {
		t := &tunnel{kind: kind}
		b.tunnels[kind] = t
		if t.server, err = startChild(ctx, roleServer, kind, setup{Identity: far, Next: b.app.addr, Profile: profile(kind, roleServer)}); err != nil {
			return b, err
		}
		if t.client, err = startChild(ctx, roleClient, kind, setup{Identity: near, Expect: far.URI, Next: t.server.addr, Profile: profile(kind, roleClient)}); err != nil {
			return b, err
		}
	}
	if b.tunnels[haproxy], err = startHAProxy(ctx, o.haproxy, b.dir, b.app.addr, near, far); err != nil {
		delete(b.tunnels, haproxy)
		return b, err
	}
	return b, nil
}

// of lists the tunnels of a scenario, ours first.
func (b *testbed) of(s scenario) []*tunnel {
	out := []*tunnel{b.tunnels[isthmus]}
	for _, t := range s.targets {
		out = append(out, b.tunnels[t.peer])
	}
	return out
}

func (b *testbed) close() {
	for _, t := range b.tunnels {
		t.client.stop()
		t.server.stop()
	}
	b.app.stop()
	os.RemoveAll(b.dir)
}

// dial opens a connection through the tunnel.
func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	if t.kind == haproxy {
		return connect(ctx, t.client.addr)
	}
	return through(t.client.addr)(ctx)
}

// load runs a scenario through the tunnel.
func (t *tunnel) load(ctx context.Context, s scenario, units int) error {
	if t.kind != direct {
		return s.load(ctx, t.dial, units)
	}
	_, err := t.client.ask(fmt.Sprintf("load %s %d", s.name, units))
	return err
}

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
	addr    string
	second  string // of another workload that the process serves, if it is a proxy next to the load
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	foreign bool // another program: all that can be known is its CPU time
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
	c.addr, c.second, _ = strings.Cut(strings.TrimSpace(line), " ")
	return c, nil
}

// ask sends a line and returns the number that comes back.
func (c *child) ask(what string) (int64, error) {
	if c.foreign {
		return cpuOf(c.cmd.Process.Pid)
	}
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
	if c.foreign {
		_ = c.cmd.Process.Signal(os.Interrupt)
	}
	timer := time.AfterFunc(5*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	_ = c.cmd.Wait()
}
