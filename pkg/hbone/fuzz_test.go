package hbone

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:1", "host.example:443", "host", ":80", "a:b", "[::1]", "1.2.3.4:99999", "a b:1", "x:0", "::1:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseAuthority(s); err != nil {
			return
		}
		host, port, err := net.SplitHostPort(s)
		if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || convErr != nil || n == 0 {
			t.Errorf("%q was accepted", s)
		}
	})
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for="10.0.0.1:4711";host=web.shop.svc`)
	f.Add(`for="[::1]:80"`)
	f.Add(`FOR=x;;host="a\"b",for=y`)
	f.Fuzz(func(t *testing.T, s string) {
		client, host := ParseForwarded(s)
		if !client.IsValid() || host == "" || strings.ContainsAny(host, `;,"\ `) {
			return
		}
		if again, name := ParseForwarded(FormatForwarded(client, host)); again != client || name != host {
			t.Errorf("%s and %q came back as %s and %q", client, host, again, name)
		}
	})
}

func FuzzBaggage(f *testing.F) {
	f.Add("k8s.cluster.name=c,k8s.namespace.name=n,k8s.deployment.name=d,service.name=s,service.version=v1")
	f.Add("a=b;c,=,k8s.pod.name=,k8s.job.name=x")
	f.Fuzz(func(t *testing.T, s string) {
		w := ParseBaggage(s)
		if strings.ContainsAny(s, ",;= \t") && strings.ContainsAny(Baggage(w), "\r\n") && !strings.ContainsAny(s, "\r\n") {
			t.Errorf("%q became %q", s, Baggage(w))
		}
	})
}

// overheard keeps what is written to a connection.
type overheard struct {
	net.Conn
	mu   sync.Mutex // guards said
	said []byte
}

// Write implements net.Conn.
func (o *overheard) Write(p []byte) (int, error) {
	o.mu.Lock()
	o.said = append(o.said, p...)
	o.mu.Unlock()
	return o.Conn.Write(p)
}

// clientSays is what a client of ours sends behind its preface in a real session: two streams, of which one is cut.
func clientSays(t testing.TB) []byte {
	t.Helper()
	a, b := net.Pipe()
	o := &overheard{Conn: a}
	served := make(chan error, 1)
	go func() { served <- ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{}) }()
	cc, err := NewClientConn(o, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80", Header: Header{{"baggage", "k8s.namespace.name=shop"}}})
		if err == nil && n == 0 {
			err = exchange(s, 5000)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	cc.Close()
	<-served
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.TrimPrefix(o.said, []byte(http2.ClientPreface))
}

// FuzzServeConn: whatever a peer sends, the server lets it go when it ends.
func FuzzServeConn(f *testing.F) {
	var out strings.Builder
	w := http2.NewFramer(&out, nil)
	_ = w.WriteSettings()
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x02, 0x07, 'C', 'O', 'N', 'N', 'E', 'C', 'T', 0x01, 0x03, 'a', ':', '1'}})
	_ = w.WriteData(1, true, []byte("hello"))
	_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
	f.Add([]byte(out.String()))
	f.Add(clientSays(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{})
		}()
		go func() { _, _ = io.Copy(io.Discard, a) }()
		a.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(a, http2.ClientPreface)
		_, _ = a.Write(data)
		a.Close()
		select {
		case <-served:
		case <-time.After(20 * time.Second):
			t.Fatal("still served")
		}
	})
}
