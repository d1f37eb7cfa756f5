//nolint:staticcheck // the yardstick is this package, deprecated parts included
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

// Sizes of the peer's tunnel: windows as ours; frames and copies in the sizes with which it does best.
const (
	xnetFrame  = 64 << 10
	xnetCopy   = 64 << 10
	xnetStream = 4 << 20
	xnetConn   = 16 << 20
	// xnetStreams per connection, before another is opened.
	xnetStreams = 100
)

// xnetClient is the client proxy on golang.org/x/net/http2: few connections, no goroutine or pipe that isn't needed, the
// socket itself as the body of the request.
func xnetClient(own *certs.Workload, s setup) (func(net.Listener) error, error) {
	p := &xnetPool{
		addr: s.Next, config: certs.HBONEClientConfig(own, []string{s.Expect}),
		transport: &http2.Transport{MaxReadFrameSize: xnetFrame, DisableCompression: true}, //nolint:staticcheck // it is what we compare with
	}
	return func(l net.Listener) error {
		return accept(l, spawn, func(conn *net.TCPConn) {
			defer conn.Close()
			cc, err := p.get()
			if err != nil {
				return
			}
			request := (&http.Request{
				Method: http.MethodConnect, URL: &url.URL{Host: authority}, Host: authority, Header: http.Header{}, Body: uploadOf{conn},
			}).WithContext(context.Background())
			response, err := cc.RoundTrip(request)
			if err != nil || response.StatusCode != http.StatusOK {
				return
			}
			defer response.Body.Close()
			if copyAll(conn, response.Body) == nil {
				_ = conn.CloseWrite() // the load sees it fail
			}
		})
	}, nil
}

// uploadOf is a socket as the body of a request: closing it ends nothing, as the other direction may go on.
type uploadOf struct{ *net.TCPConn }

// Close implements io.Closer.
func (uploadOf) Close() error { return nil }

// xnetPool keeps connections that take more streams.
type xnetPool struct {
	addr      string
	config    *tls.Config
	transport *http2.Transport

	mu    sync.Mutex // guards conns
	conns []*http2.ClientConn
}

func (p *xnetPool) get() (*http2.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cc := range p.conns {
		if st := cc.State(); st.StreamsActive+st.StreamsReserved < xnetStreams && cc.ReserveNewRequest() {
			return cc, nil
		}
	}
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, p.config)
	if err := secured.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	cc, err := p.transport.NewClientConn(secured)
	if err != nil {
		return nil, err
	}
	p.conns = append(p.conns, cc)
	if !cc.ReserveNewRequest() {
		return nil, errors.New("a fresh connection takes no request")
	}
	return cc, nil
}

// xnetServer is the server proxy on golang.org/x/net/http2.
func xnetServer(own *certs.Workload, s setup) func(net.Listener) error {
	config := certs.HBONEServerConfig(func() (*certs.Workload, error) { return own, nil })
	h2 := &http2.Server{ //nolint:staticcheck // it is what we compare with
		MaxConcurrentStreams: 200, MaxReadFrameSize: xnetFrame,
		MaxUploadBufferPerConnection: xnetConn, MaxUploadBufferPerStream: xnetStream,
	}
	return func(l net.Listener) error {
		return accept(l, spawn, func(conn *net.TCPConn) {
			secured := tls.Server(conn, config)
			if err := secured.Handshake(); err != nil {
				conn.Close()
				return
			}
			h2.ServeConn(secured, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := xnetServe(w, r, s.Next); err != nil {
					panic(http.ErrAbortHandler) // resets the stream
				}
			})})
		})
	}
}

func xnetServe(w http.ResponseWriter, r *http.Request, app string) error {
	var d net.Dialer
	conn, err := d.DialContext(r.Context(), "tcp", app)
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	}
	defer conn.Close()
	flusher, ok := w.(http.Flusher)
	if !ok {
		return fmt.Errorf("a response of type %T that cannot be flushed", w)
	}
	w.WriteHeader(http.StatusOK)
	flusher.Flush()
	up := make(chan error, 1)
	go func() {
		err := copyAll(conn, r.Body)
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		up <- err
	}()
	err = copyAll(flushWriter{w, flusher}, conn)
	return errors.Join(err, <-up)
}

// flushWriter sends each write at once.
type flushWriter struct {
	io.Writer
	flusher http.Flusher
}

// Write implements io.Writer.
func (f flushWriter) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	f.flusher.Flush()
	return n, err
}

var copyBuffers = sync.Pool{New: func() any { return new([xnetCopy]byte) }}

// copyAll copies through a pooled buffer. The wrappers hide ReadFrom and WriteTo, which would use smaller ones.
func copyAll(dst io.Writer, src io.Reader) error {
	buf := copyBuffers.Get().(*[xnetCopy]byte)
	defer copyBuffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
	return err
}
