package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// handlerFunc adapts a function to Handler.
type handlerFunc func(ctx context.Context, r *Request, w ResponseWriter)

func (f handlerFunc) ServeCONNECT(ctx context.Context, r *Request, w ResponseWriter) { f(ctx, r, w) }

// echo sends everything back, then the end.
func echo(_ context.Context, r *Request, w ResponseWriter) {
	if r.Authority == "refuse:1" {
		w.Refuse(401, nil)
		return
	}
	s, err := w.Accept(Header{{"baggage", "service.name=echo"}})
	if err != nil {
		return
	}
	io.Copy(s, s)
	s.CloseWrite()
}

// connect returns a client whose peer serves h; served yields ServeConn's result.
func connect(t testing.TB, h Handler, cfg ServerConfig) (cc *ClientConn, served chan error) {
	t.Helper()
	a, b := carrier(t)
	served = make(chan error, 1)
	go func() { served <- ServeConn(context.Background(), b, h, cfg); close(served) }()
	cc, err := NewClientConn(a, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close(); <-served })
	return cc, served
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// exchange sends size random bytes through s, half-closes, and compares what comes back.
func exchange(s interface {
	io.ReadWriter
	CloseWrite() error
}, size int,
) error {
	sent := make([]byte, size)
	rand.Read(sent)
	errc := make(chan error, 1)
	go func() {
		_, err := s.Write(sent)
		errc <- errors.Join(err, s.CloseWrite())
	}()
	h := sha256.New()
	if _, err := io.Copy(h, s); err != nil {
		return err
	}
	want := sha256.Sum256(sent)
	if !bytes.Equal(h.Sum(nil), want[:]) {
		return errors.New("other bytes came back")
	}
	return <-errc
}

func TestHundredStreams(t *testing.T) {
	cc, _ := connect(t, handlerFunc(echo), ServerConfig{})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			s, resp, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80"})
			if err != nil {
				t.Error(err)
				return
			}
			if got := resp.Header.Get("baggage"); got != "service.name=echo" {
				t.Errorf("baggage %q", got)
			}
			if err := exchange(s, 300_000); err != nil {
				t.Error(err)
			}
			s.Close()
		})
	}
	wg.Wait()
}

func TestRefusal(t *testing.T) {
	cc, _ := connect(t, handlerFunc(echo), ServerConfig{})
	_, resp, err := cc.Connect(deadline(t), &Request{Authority: "refuse:1"})
	var se *StatusError
	if !errors.As(err, &se) || se.Status != 401 || resp.Status != 401 {
		t.Fatalf("got %v, want status 401", err)
	}
}

func TestSlowStreamDoesNotBlockOthers(t *testing.T) {
	release := make(chan struct{})
	h := handlerFunc(func(ctx context.Context, r *Request, w ResponseWriter) {
		if r.Authority == "slow:1" {
			s, _ := w.Accept(nil)
			<-release
			io.Copy(io.Discard, s)
			return
		}
		echo(ctx, r, w)
	})
	cc, _ := connect(t, h, ServerConfig{})
	var slow sync.WaitGroup
	for range 6 { // more than the connection's window in stream windows
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "slow:1"})
		if err != nil {
			t.Fatal(err)
		}
		slow.Go(func() { s.Write(make([]byte, 5<<20)); s.CloseWrite() })
	}
	s, _, err := cc.Connect(deadline(t), &Request{Authority: "fast:1"})
	if err == nil {
		err = exchange(s, 8<<20)
	}
	close(release)
	slow.Wait()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDrain(t *testing.T) {
	drain := make(chan struct{})
	cc, served := connect(t, handlerFunc(echo), ServerConfig{Drain: drain})
	s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
	if err != nil {
		t.Fatal(err)
	}
	close(drain)
	for { // until the GOAWAY arrived
		extra, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
		if errors.Is(err, ErrNotSent) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		extra.Close()
	}
	if err := exchange(s, 1<<20); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := <-served; err != nil {
		t.Fatalf("ServeConn: %v", err)
	}
}

func TestResetIsAnError(t *testing.T) {
	h := handlerFunc(func(_ context.Context, _ *Request, w ResponseWriter) {
		s, _ := w.Accept(nil)
		s.Reset()
	})
	cc, _ := connect(t, h, ServerConfig{})
	s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
	if err == nil {
		_, err = s.Read(make([]byte, 1))
	}
	if !errors.Is(err, ErrReset) {
		t.Fatalf("got %v, want ErrReset", err)
	}
}

// TestRelayThroughTunnel is the whole path: app – proxy – tunnel – proxy – app, bytes and half close.
func TestRelayThroughTunnel(t *testing.T) {
	h := handlerFunc(func(ctx context.Context, _ *Request, w ResponseWriter) {
		app, proxy := tcp.Pair(t)
		go func() { io.Copy(app, app); app.CloseWrite() }()
		s, err := w.Accept(nil)
		if err != nil {
			return
		}
		if err := netx.Relay(ctx, s, proxy, nil); err != nil {
			t.Errorf("inbound: %v", err)
		}
	})
	cc, _ := connect(t, h, ServerConfig{})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			app, proxy := tcp.Pair(t)
			s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
			if err != nil {
				t.Error(err)
				return
			}
			var count netx.Counters
			done := make(chan error, 1)
			go func() { done <- netx.Relay(context.Background(), proxy, s, &count) }()
			if err := exchange(app, 6<<20); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Errorf("outbound: %v", err)
			}
			if count.Sent.Load() != 6<<20 || count.Received.Load() != 6<<20 {
				t.Errorf("counted %d/%d", count.Sent.Load(), count.Received.Load())
			}
		})
	}
	wg.Wait()
}

func TestForeignClient(t *testing.T) {
	a, b := carrier(t)
	served := make(chan error, 1)
	go func() { served <- ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{}) }()
	cc, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(a) //nolint:staticcheck // the oracle is x/net itself
	if err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	data := make([]byte, 3<<20)
	rand.Read(data)
	go func() { pw.Write(data); pw.Close() }()
	req := (&http.Request{Method: "CONNECT", URL: &url.URL{Host: "a:1"}, Host: "a:1", Body: pr, Header: http.Header{}}).WithContext(deadline(t))
	resp, err := cc.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes back, %v", len(got), err)
	}
	get, _ := http.NewRequestWithContext(deadline(t), http.MethodGet, "http://a/", nil)
	if resp, err := cc.RoundTrip(get); err != nil || resp.StatusCode != 400 {
		t.Errorf("GET: %v %v, want 400", resp, err)
	}
	cc.Close()
	<-served
}

// TestForeignServer also covers small windows: x/net announces 16 KiB frames and what we set here.
func TestForeignServer(t *testing.T) {
	a, b := carrier(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		(&http2.Server{MaxUploadBufferPerConnection: 1 << 16, MaxUploadBufferPerStream: 1000}).ServeConn(b, &http2.ServeConnOpts{ //nolint:staticcheck // the oracle is x/net itself
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				buf := make([]byte, 8192)
				for {
					n, err := r.Body.Read(buf)
					w.Write(buf[:n])
					w.(http.Flusher).Flush()
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
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, _, err := cc.Connect(deadline(t), &Request{Authority: "a:1"})
			if err == nil {
				err = exchange(s, 200_000)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	cc.Close()
	<-served
}

func TestPool(t *testing.T) {
	var mu sync.Mutex
	dials := 0
	var servers sync.WaitGroup
	p := NewPool(func(context.Context, PoolKey) (net.Conn, error) {
		a, b := carrier(t)
		mu.Lock()
		dials++
		mu.Unlock()
		servers.Go(func() { ServeConn(context.Background(), b, handlerFunc(echo), ServerConfig{}) })
		return a, nil
	}, PoolConfig{MaxStreams: 10})
	var wg sync.WaitGroup
	var all sync.WaitGroup
	all.Add(30)
	for range 30 {
		wg.Go(func() {
			s, _, err := p.Connect(deadline(t), &PoolKey{Source: "a"}, &Request{Authority: "a:1"})
			all.Done()
			if err != nil {
				t.Error(err)
				return
			}
			all.Wait() // all are open at once
			if err := exchange(s, 1000); err != nil {
				t.Error(err)
			}
			s.Close()
		})
	}
	wg.Wait()
	if dials < 3 || dials > 4 {
		t.Errorf("%d dials for 30 streams of 10 per connection", dials)
	}
	p.Close()
	servers.Wait()
}

// A stream that is kept for later is not used again when the peer has ended it, has sent something, or leaves.
func TestStale(t *testing.T) {
	drain, act := make(chan struct{}), make(chan string)
	cc, _ := connect(t, handlerFunc(func(ctx context.Context, _ *Request, w ResponseWriter) {
		s, err := w.Accept(nil)
		if err != nil {
			return
		}
		switch <-act {
		case "end":
			s.CloseWrite()
		case "reset":
			s.Reset()
		case "speak":
			s.Write([]byte("x"))
		case "leave":
			close(drain)
		}
		<-ctx.Done()
	}), ServerConfig{Drain: drain})
	for _, what := range []string{"end", "reset", "speak", "leave"} {
		s, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		if s.Stale() {
			t.Errorf("%s: stale before", what)
		}
		act <- what
		wait.Until(t, time.Minute, what+" is noticed", s.Stale, nil)
		s.Close()
	}
}
