package tcpecho

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

// start serves on free ports; stop ends it and yields its error.
func start(t *testing.T, s Server, ports int) (addrs []string, stop func() error) {
	t.Helper()
	s.Log = slog.New(slog.DiscardHandler)
	var ls []net.Listener
	for range ports {
		l, err := serve.Listen(t.Context(), "0")
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		addrs = append(addrs, net.JoinHostPort("127.0.0.1", port))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, ls) }()
	return addrs, func() error { cancel(); return <-done }
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestEcho(t *testing.T) {
	addrs, stop := start(t, Server{Prefix: "hello"}, 2)
	long := strings.Repeat("x", 100_000)
	for _, addr := range addrs {
		c := dial(t, addr)
		go func() {
			_, _ = io.WriteString(c, "world\n\n"+long+"\nunfinished")
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if want := "hello world\nhello \nhello " + long + "\nhello unfinished"; err != nil || string(got) != want {
			t.Errorf("%s: %d bytes %.40q, %v", addr, len(got), got, err)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestServerSpeaksFirst(t *testing.T) {
	addrs, stop := start(t, Server{Prefix: "hello", Banner: "220 ready"}, 1)
	c := dial(t, addrs[0])
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "220 ready\n" {
		t.Errorf("greeting %q %v", line, err)
	}
	// Stopping must not wait for clients that stay.
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("connection survived the server")
	}
}

func TestPortInUse(t *testing.T) {
	l, err := serve.Listen(t.Context(), "0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s := Server{Ports: []string{"0", port}, Log: slog.New(slog.DiscardHandler)}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("error %v does not name port %s", err, port)
	}
}
