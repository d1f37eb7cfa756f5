package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"testing"

	"golang.org/x/net/http2"
)

func TestBothEndsOursOverTLS(t *testing.T) {
	for _, c := range []carriage{current, {client: Records, server: Standard}, {client: Standard, server: Records}} {
		t.Run(c.client.String()+" to "+c.server.String(), func(t *testing.T) { bothEndsOurs(t, c) })
	}
}

func bothEndsOurs(t *testing.T, c carriage) {
	a, b := secured(t, c)
	served := make(chan error, 1)
	go func() { served <- ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{}) }()
	cc, err := NewClientConn(a, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
		if err == nil {
			err = exchange(s, 300_000)
		}
		if err != nil {
			t.Error(err)
		}
	}
	cc.Close()
	<-served
}

func TestForeignClientOverTLS(t *testing.T) {
	a, b := secured(t, current)
	served := make(chan error, 1)
	go func() { served <- ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{}) }()
	cc, err := (&http2.Transport{}).NewClientConn(a) //nolint:staticcheck // the oracle is x/net itself
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 3<<20)
	rand.Read(data)
	in, out := io.Pipe()
	go func() { out.Write(data); out.Close() }()
	request := (&http.Request{Method: "CONNECT", URL: &url.URL{Host: "a:1"}, Host: "a:1", Body: in, Header: http.Header{}}).WithContext(deadline(t))
	response, err := cc.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(response.Body)
	if err != nil || !bytes.Equal(got, data) || response.Header.Get("baggage") != "service.name=echo" {
		t.Errorf("%d bytes back, %v, headers %v", len(got), err, response.Header)
	}
	cc.Close()
	<-served
}

func TestForeignServerOverTLS(t *testing.T) {
	a, b := secured(t, current)
	served := make(chan struct{})
	go func() {
		defer close(served)
		(&http2.Server{}).ServeConn(b, &http2.ServeConnOpts{ //nolint:staticcheck // the oracle is x/net itself
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				flush := http.NewResponseController(w)
				_ = flush.Flush()
				buf := make([]byte, 32<<10)
				for {
					n, err := r.Body.Read(buf)
					if n > 0 {
						w.Write(buf[:n])
						_ = flush.Flush()
					}
					if err != nil {
						return
					}
				}
			}),
		})
	}()
	cc, err := NewClientConn(a, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
	if err == nil {
		err = exchange(s, 2<<20)
	}
	if err != nil {
		t.Error(err)
	}
	cc.Close()
	<-served
}
