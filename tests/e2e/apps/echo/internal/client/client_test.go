package client_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/client"
	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/server"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		left := goleak.Find()
		for deadline := time.Now().Add(20 * time.Second); left != nil && time.Now().Before(deadline); { // for what is about to end
			left = goleak.Find()
		}
		if left != nil {
			fmt.Fprintln(os.Stderr, left)
			code = 1
		}
	}
	os.Exit(code)
}

// start runs a server; every port is bound to one of the kernel's choice.
func start(t *testing.T, cfg server.Config) map[int]net.Addr {
	t.Helper()
	cfg.Bind, cfg.Hostname, cfg.Version, cfg.Log = "127.0.0.1", "echo-v1-abc", "v1", slog.New(slog.DiscardHandler)
	started := make(chan map[int]net.Addr, 1)
	cfg.Started = func(a map[int]net.Addr) { started <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case a := <-started:
		return a
	case <-time.After(time.Minute):
		t.Fatal("the server did not start")
		return nil
	}
}

func ask(t *testing.T, cfg client.Config) (string, string, error) {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Method == "" {
		cfg.Method = http.MethodGet
	}
	if cfg.Headers == nil {
		cfg.Headers = http.Header{}
	}
	var out, problems bytes.Buffer
	err := client.Run(context.Background(), cfg, &out, &problems)
	return out.String(), problems.String(), err
}

func TestProtocols(t *testing.T) {
	for _, tt := range []struct {
		name, scheme, path string
		server             server.Config
		client             client.Config
		want               []string
	}{
		{"http", "http", "/a?b=c", server.Config{HTTP: []int{0}}, client.Config{Method: "POST", Message: "x", Headers: http.Header{"X-A": {"1"}, "Host": {"other"}}}, []string{
			"[0] StatusCode=200\n", "[0 body] Host=other\n", "[0 body] URL=/a?b=c\n", "[0 body] Method=POST\n", "[0 body] RequestHeader=X-A:1\n", "[0 body] Proto=HTTP/1.1\n", "[0] ResponseHeader=Content-Type:text/plain\n",
		}},
		{"http2", "http", "/", server.Config{HTTP: []int{0}}, client.Config{HTTP2: true}, []string{"[0 body] Proto=HTTP/2.0\n"}},
		{"codes", "http", "/?codes=503&headers=retry-after:1", server.Config{HTTP: []int{0}}, client.Config{}, []string{"[0] StatusCode=503\n", "[0] ResponseHeader=Retry-After:1\n"}},
		{"https", "https", "/", server.Config{HTTP: []int{0}, TLS: []int{0}}, client.Config{HTTP2: true, ServerName: "echo.test"}, []string{"[0] StatusCode=200\n", "[0 body] Alpn=h2\n", "[0 body] ServerName=echo.test\n"}},
		{"ws", "ws", "/x", server.Config{HTTP: []int{0}}, client.Config{Message: "hey"}, []string{"[0 body] URL=/x\n", "[0 body] hey\n"}},
		{"grpc", "grpc", "", server.Config{GRPC: []int{0}}, client.Config{Headers: http.Header{"X-A": {"1"}}}, []string{"[0] StatusCode=200\n", "[0 body] RequestHeader=x-a:1\n", "[0 body] Proto=GRPC\n"}},
		{"grpcs", "grpcs", "", server.Config{GRPC: []int{0}, TLS: []int{0}}, client.Config{NewConnections: true}, []string{"[0] StatusCode=200\n"}},
		{"tcp", "tcp", "", server.Config{TCP: []int{0}}, client.Config{}, []string{"[0 body] StatusCode=200\n", "[0 body] Protocol=TCP\n", "[0 body] HelloWorld\n"}},
		{"tcp, server first", "tcp", "", server.Config{TCP: []int{0}, ServerFirst: []int{0}}, client.Config{ServerFirst: true}, []string{"[0 body] HelloWorld\n"}},
		{"tls", "tls", "", server.Config{TCP: []int{0}, TLS: []int{0}}, client.Config{}, []string{"[0] Version=TLS 1.3\n", "[0 body] HelloWorld\n"}},
		{"udp", "udp", "", server.Config{UDP: []int{0}}, client.Config{Message: "datagram"}, []string{"[0 body] Protocol=UDP\n", "[0 body] datagram\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := start(t, tt.server)[0]
			tt.client.URL = tt.scheme + "://" + address.String() + tt.path
			out, problems, err := ask(t, tt.client)
			if err != nil {
				t.Fatal(err, problems)
			}
			for _, want := range append(tt.want, "Hostname=echo-v1-abc\n", "ServiceVersion=v1\n", "IP=127.0.0.1\n") {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if !strings.HasSuffix(out, "\n\n") {
				t.Errorf("no empty line at the end of %q", out)
			}
		})
	}
}

func TestManyRequestsAreSeparated(t *testing.T) {
	address := start(t, server.Config{GRPC: []int{0}})[0]
	out, problems, err := ask(t, client.Config{URL: fmt.Sprintf("grpc://%s", address), Count: 50, Parallel: 8})
	if err != nil {
		t.Fatal(err, problems)
	}
	answers := strings.Split(strings.TrimSpace(out), "\n\n")
	if len(answers) != 50 || !strings.HasPrefix(answers[49], "[49] ") {
		t.Errorf("%d answers; the last: %s", len(answers), answers[len(answers)-1])
	}
}

func TestFailures(t *testing.T) {
	const closed = "127.0.0.1:1" // not one that anything is given
	for _, scheme := range []string{"http", "grpc", "tcp", "ws"} {
		out, problems, err := ask(t, client.Config{URL: scheme + "://" + closed, Count: 2, Parallel: 1})
		if err == nil || out != "" || !strings.Contains(problems, "[1 error]") {
			t.Errorf("%s: %v, %q, %q", scheme, err, out, problems)
		}
	}
	for _, bad := range []string{"gopher://x", "tcp://x", "http://%zz"} {
		if _, _, err := ask(t, client.Config{URL: bad}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
