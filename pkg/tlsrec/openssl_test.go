package tlsrec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// program is a running openssl.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func openssl(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.CommandContext(deadline(t), "openssl", args...)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if !slices.Contains(args, "-quiet") {
		p.cmd.Stderr = p.cmd.Stdout
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("openssl is needed: %v", err)
	}
	t.Cleanup(func() {
		p.in.Close()
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

// say types a line.
func (p *program) say(line string) {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Error(err)
	}
}

// expect reads on until a line holds text.
func (p *program) expect(text string) {
	p.t.Helper()
	for {
		line, err := p.out.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			p.t.Fatalf("openssl does not print %q: %v", text, err)
		}
	}
}

var opensslSuites = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

// asServer returns openssl s_client connected to a Conn.
func asServer(t *testing.T, suite string, args ...string) (*program, *Conn) {
	t.Helper()
	return asServerOver(t, asItIs, suite, args...)
}

func asItIs(nc net.Conn) net.Conn { return nc }

func asServerOver(t *testing.T, over func(net.Conn) net.Conn, suite string, args ...string) (*program, *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cert, key := files(t)
	p := openssl(t, append([]string{"s_client", "-connect", l.Addr().String(), "-tls1_3", "-ciphersuites", suite, "-alpn", "h2", "-cert", cert, "-key", key}, args...)...)
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, sc := configs(t)
	c, err := ownServer(deadline(t), over(nc), sc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return p, c.(*Conn)
}

// asClient returns openssl s_server with a Conn connected to it.
func asClient(t *testing.T, suite string, args ...string) (*program, *Conn) {
	t.Helper()
	return asClientOver(t, asItIs, suite, args...)
}

func asClientOver(t *testing.T, over func(net.Conn) net.Conn, suite string, args ...string) (*program, *Conn) {
	t.Helper()
	addr := tcp.Free(t)
	cert, key := files(t)
	p := openssl(t, append([]string{"s_server", "-accept", addr, "-tls1_3", "-ciphersuites", suite, "-alpn", "h2", "-cert", cert, "-key", key, "-Verify", "1", "-naccept", "1"}, args...)...)
	var nc net.Conn
	var err error
	wait.Until(t, time.Minute, "openssl listens", func() bool {
		nc, err = net.Dial("tcp", addr)
		return err == nil
	}, nil)
	cc, _ := configs(t)
	c, err := ownClient(deadline(t), over(nc), cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return p, c.(*Conn)
}

func read(t *testing.T, c *Conn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Fatalf("%q, %v, want %q", buf, err, want)
	}
}

// awaitUpdate reads until the peer has changed its keys so often.
func awaitUpdate(t *testing.T, c *Conn, n uint64) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); c.rx.updates < n; {
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		var timeout net.Error
		if k, err := c.Read(make([]byte, 1)); k > 0 || !errors.As(err, &timeout) || time.Now().After(end) {
			t.Fatalf("%d bytes, %v", k, err)
		}
	}
}

// Both roles, every suite, tickets, and key updates that either side starts, with and without a request.
func TestOpenSSL(t *testing.T) {
	for i, suite := range opensslSuites {
		for role, start := range map[string]func(*testing.T, string, ...string) (*program, *Conn){"server": asServer, "client": asClient} {
			t.Run(suite+" as "+role, func(t *testing.T) {
				p, c := start(t, suite)
				if got := c.ConnectionState(); got.CipherSuite != suites[i] || got.NegotiatedProtocol != "h2" {
					t.Fatalf("suite %#x, protocol %q", got.CipherSuite, got.NegotiatedProtocol)
				}
				for round := range 3 {
					line := fmt.Sprintf("hello %d", round)
					p.say(line)
					read(t, c, line+"\n")
					fmt.Fprintf(c, "answer %d\n", round)
					p.expect(fmt.Sprintf("answer %d", round))
				}
				for i, command := range []string{"k", "K", "K"} { // without a request, with one
					p.say(command)
					if role == "server" { // openssl takes a line at a time
						p.expect("KEYUPDATE")
					} else {
						awaitUpdate(t, c, uint64(i+1))
					}
					p.say("after the update")
					read(t, c, "after the update\n")
					if c.rx.updates != uint64(i+1) || c.updateOwed.Load() != (command == "K") {
						t.Errorf("%s: %d updates, owed %v", command, c.rx.updates, c.updateOwed.Load())
					}
					fmt.Fprintln(c, "new keys here too", i)
					p.expect(fmt.Sprint("new keys here too ", i))
					if c.updateOwed.Load() {
						t.Error("the update is still owed")
					}
				}
				for i, request := range []bool{false, true} {
					if err := c.UpdateKeys(request); err != nil {
						t.Fatal(err)
					}
					fmt.Fprintln(c, "ours", i)
					p.expect(fmt.Sprint("ours ", i))
					p.say("yours")
					read(t, c, "yours\n")
				}
				if c.rx.updates != 4 {
					t.Errorf("%d updates, want 4 with the one that we asked for", c.rx.updates)
				}
				p.say("Q") // s_client says goodbye, s_server just goes
				want := map[string]error{"server": io.EOF, "client": io.ErrUnexpectedEOF}[role]
				c.SetReadDeadline(time.Now().Add(30 * time.Second))
				if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, want) {
					t.Errorf("the end is %d, %v", n, err)
				}
			})
		}
	}
}

func TestOpenSSLBulk(t *testing.T) {
	const size = 8 << 20
	data := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	for _, suite := range opensslSuites {
		t.Run(suite, func(t *testing.T) {
			from, c := asServer(t, suite, "-quiet")
			go func() {
				_, _ = from.in.Write(data)
				from.in.Close()
			}()
			got := make([]byte, size)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("from s_client: %v, equal %v", err, bytes.Equal(got, data))
			}
			to, c := asClient(t, suite, "-quiet")
			done := make(chan error, 1)
			go func() {
				_, err := c.Write(data)
				done <- err
			}()
			if _, err := io.ReadFull(to.out, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("to s_server: %v, equal %v", err, bytes.Equal(got, data))
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			c.CloseWrite()
			c.Close()
		})
	}
}
