package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
)

// secured is a connection under mutual TLS between two workloads, as node proxies make it.
func secured(t *testing.T) (client, server *tls.Conn) {
	t.Helper()
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(account string) *certs.Workload {
		w, err := ca.Issue(t.Context(), spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	from, to := issue("client"), issue("server")
	a, b := socketPair(t)
	quick := func(c *net.TCPConn) net.Conn {
		direct, err := netx.Direct(c)
		if err != nil {
			t.Fatal(err)
		}
		return direct
	}
	client = tls.Client(quick(a), certs.HBONEClientConfig(from, []string{to.ID.String()}))
	server = tls.Server(quick(b), certs.HBONEServerConfig(func() (*certs.Workload, error) { return to, nil }))
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(deadline(t)) }()
	if err := client.HandshakeContext(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestBothEndsOursOverTLS(t *testing.T) {
	a, b := secured(t)
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
	a, b := secured(t)
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
	a, b := secured(t)
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
