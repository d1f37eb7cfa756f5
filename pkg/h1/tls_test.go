package h1_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// TestOverTLS: looking after a client that waits does not harm a connection that is no socket.
func TestOverTLS(t *testing.T) {
	oracle := httptest.NewTLSServer(http.NotFoundHandler())
	defer oracle.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: oracle.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		served <- h1.Serve(context.Background(), c, func(ctx context.Context, s httpmsg.ServerStream) {
			select {
			case <-s.Gone():
				t.Error("gone")
			case <-time.After(120 * time.Millisecond):
			}
			echo(ctx, s)
		}, h1.ServerConfig{Scheme: "https"})
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	if err != nil {
		t.Fatal(err)
	}
	k := h1.NewClient(c, h1.ClientConfig{})
	for range 3 {
		got, body, _ := exchange(t, k, request("POST", "/", 100000), pattern(100000))
		if !bytes.Equal(body, pattern(100000)) || got.Header.Value("x-scheme") != "https" {
			t.Error(got, len(body))
		}
		select { // the client looks after its idle connection, too
		case <-k.Done():
			t.Fatal("given up")
		case <-time.After(100 * time.Millisecond):
		}
	}
	k.Close()
	l.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
