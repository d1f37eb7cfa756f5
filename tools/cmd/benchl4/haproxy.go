package main

import (
	"bufio"
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// haproxyConfig is a proxy that hands CONNECTs on: over HTTP/2 under TLS on one side, over HTTP/1 on the other.
const haproxyConfig = `global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout connect 10s
  timeout client 120s
  timeout server 120s
  timeout tunnel 120s
  http-reuse always
frontend in
  bind %s
  default_backend out
backend out
  server out %s
`

// startHAProxy starts both proxies of a tunnel.
func startHAProxy(ctx context.Context, binary, dir, app string, near, far identity) (*tunnel, error) {
	for name, id := range map[string]identity{"near.pem": near, "far.pem": far} {
		key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: id.Key})
		if err := os.WriteFile(filepath.Join(dir, name), append([]byte(id.Chain[0]), key...), 0o600); err != nil {
			return nil, err
		}
	}
	// Its peers are not verified: no scenario measures handshakes.
	tls := func(name, verify string) string {
		return fmt.Sprintf("ssl crt %s %s alpn h2 ssl-min-ver TLSv1.3", filepath.Join(dir, name), verify)
	}
	t := &tunnel{kind: haproxy}
	server, err := startOne(ctx, binary, filepath.Join(dir, "far.cfg"), tls("far.pem", ""), app)
	if err != nil {
		return nil, err
	}
	t.server = server
	if t.client, err = startOne(ctx, binary, filepath.Join(dir, "near.cfg"), "", server.addr+" proto h2 "+tls("near.pem", "verify none")); err != nil {
		server.stop()
		return nil, err
	}
	return t, nil
}

// startOne starts one proxy and waits until it listens.
func startOne(ctx context.Context, binary, file, bind, out string) (*child, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := free.Addr().String()
	free.Close()
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, strings.TrimSpace(addr+" "+bind), out), 0o600); err != nil {
		return nil, err
	}
	c := &child{addr: addr, foreign: true, cmd: exec.CommandContext(ctx, binary, "-db", "-f", file)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start HAProxy: %w", err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return c, nil
		}
		if time.Now().After(end) {
			c.stop()
			return nil, fmt.Errorf("HAProxy does not start: %w", err)
		}
	}
}

// cpuOf is what the threads of a process have used, in nanoseconds.
func cpuOf(pid int) (total int64, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		used, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, err
}

// connect dials a proxy and asks it for a tunnel.
func connect(ctx context.Context, proxy string) (net.Conn, error) {
	conn, err := through(proxy)(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", authority); err != nil {
		conn.Close()
		return nil, err
	}
	in := bufio.NewReaderSize(conn, 1) // nothing follows the answer until we have sent something
	answer, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the proxy answers %s", answer.Status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
