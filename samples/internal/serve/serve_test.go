package serve

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHTTP: both families, both protocols, and a stop that lets a running
// request finish.
func TestHTTP(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	l, err := Listen(t.Context(), "0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ctx, stop := context.WithCancel(t.Context())
	var log strings.Builder
	done := make(chan error, 1)
	go func() { done <- HTTP(ctx, l, mux, slog.New(slog.NewTextHandler(&log, nil))) }()

	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	for _, c := range []struct {
		host, want string
		protocols  *http.Protocols
	}{{"127.0.0.1", "HTTP/1.1", nil}, {"::1", "HTTP/1.1", nil}, {"127.0.0.1", "HTTP/2.0", h2}} {
		tr := &http.Transport{Protocols: c.protocols}
		got, err := get(tr, "http://"+net.JoinHostPort(c.host, port)+"/proto")
		tr.CloseIdleConnections()
		if err != nil || got != c.want {
			t.Errorf("%s: %q %v, want %s", c.host, got, err, c.want)
		}
	}

	slow := make(chan string, 1)
	go func() {
		got, err := get(&http.Transport{DisableKeepAlives: true}, "http://"+net.JoinHostPort("127.0.0.1", port)+"/slow")
		if err != nil {
			got = err.Error()
		}
		slow <- got
	}()
	<-entered
	stop()
	refused := false
	for deadline := time.Now().Add(30 * time.Second); !refused && time.Now().Before(deadline); {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if refused = err != nil; !refused {
			c.Close()
		}
	}
	if !refused {
		t.Error("a stopping server still accepts")
	}
	close(release)
	if got := <-slow; got != "done" {
		t.Errorf("running request: %s", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "path=/proto status=200") {
		t.Errorf("access log:\n%s", log.String())
	}
}

func get(tr http.RoundTripper, url string) (string, error) {
	res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func TestRunArguments(t *testing.T) {
	p := Program{Name: "x", DefaultPort: "0", Handler: func(*slog.Logger) (http.Handler, error) { return http.NotFoundHandler(), nil }}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{nil, {"0"}} {
		// Over before it starts: listening may already be refused, but not the arguments.
		if err := Run(ctx, p, args, io.Discard); err != nil && strings.Contains(err.Error(), "usage") {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, args := range [][]string{{"x"}, {"-1"}, {"65536"}, {"1", "2"}} {
		if err := Run(ctx, p, args, io.Discard); err == nil || !strings.Contains(err.Error(), "usage: x [port]") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
