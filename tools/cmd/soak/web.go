package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/sandbox"
)

const (
	webPort = 8080
	// webGrace is how long a pod of the web may stay after it is told to end. It serves what still comes for webLast, then lets go of its
	// connections in order, as applications are told to.
	webGrace, webLast = 10 * time.Second, 4 * time.Second
	// bodyLimit is more than any request has.
	bodyLimit = 1 << 20
	podHeader = "X-Pod"
)

// web is an application in the pods of a Deployment, which come and go.
type web struct {
	bed    *bed
	ledger func() *ledger

	serving sync.WaitGroup
	mu      sync.Mutex              // guards the rest
	pods    map[string]*http.Server // by name
	last    map[uint64]uint64       // of each client, the request that arrived last
}

// attend gives each pod its application when it comes, and ends it when the pod is told to end, until ctx ends.
func (w *web) attend(ctx context.Context) {
	defer w.serving.Wait()
	for {
		pods, err := w.bed.status(ctx, namespace, "web-")
		if err == nil {
			for _, p := range pods {
				w.look(ctx, p)
			}
		}
		if !pause(ctx, look) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.pods {
				s.Close()
			}
			return
		}
	}
}

func (w *web) look(ctx context.Context, p sandbox.PodStatus) {
	w.mu.Lock()
	server := w.pods[p.Name]
	w.mu.Unlock()
	switch {
	case server == nil && !p.Terminating && len(p.IPs) > 0:
		if err := w.begin(ctx, p); err != nil && ctx.Err() == nil {
			w.bed.log.Warn("no application in a pod yet", "pod", p.Name, "error", err)
		}
	case server != nil && p.Terminating && server.Addr != "":
		server.Addr = "" // told; owned by this goroutine
		w.serving.Go(func() {
			if pause(ctx, webLast) {
				end, cancel := context.WithTimeout(ctx, webGrace-webLast)
				defer cancel()
				_ = server.Shutdown(end) // its clients know whether that was in order
			}
			server.Close()
		})
	}
}

// begin serves in a pod. It is not ready before.
func (w *web) begin(ctx context.Context, p sandbox.PodStatus) error {
	file, err := w.bed.box.PodNetNS(ctx, p.Namespace, p.Name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ns, err := netx.NewNS(file, netx.Options{})
	if err != nil {
		return err
	}
	defer ns.Close() // sockets stay
	l, err := ns.Listen(ctx, "tcp", fmt.Sprintf("0.0.0.0:%d", webPort))
	if err != nil {
		return err
	}
	server := &http.Server{Addr: l.Addr().String(), Handler: w.answer(p.Name), ReadHeaderTimeout: patience}
	w.mu.Lock()
	w.pods[p.Name] = server
	w.mu.Unlock()
	w.serving.Go(func() { _ = server.Serve(l) }) // until it is closed
	return nil
}

// answer checks a request's body, and answers with another that follows from it.
func (w *web) answer(pod string) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set(podHeader, pod)
		body, err := io.ReadAll(http.MaxBytesReader(out, r.Body, bodyLimit))
		if err != nil || len(body) < headLen {
			http.Error(out, fmt.Sprintf("a body of %d bytes: %v", len(body), err), http.StatusBadRequest)
			return
		}
		id, n := binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])
		if !bytes.Equal(body, message(nil, id, n, len(body)-headLen)) {
			http.Error(out, "a body that nobody sent", http.StatusBadRequest)
			return
		}
		if w.again(id, n) {
			w.ledger().lose(fmt.Sprintf("request %d of client %d", n, id), errors.New("arrived twice"))
		}
		_, _ = out.Write(message(nil, ^id, n, sizeOf(^id, n))) // its client knows what it gets
	})
}

// again tells whether this request, or one after it, has arrived before.
func (w *web) again(id, n uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, known := w.last[id]
	w.last[id] = max(last, n)
	return known && n <= last
}

// caller makes requests, one after the other, over one connection as long as that lasts.
type caller struct {
	host   string // of the service
	path   string
	client *http.Client
	id, n  uint64
	ledger func() *ledger
}

func newCaller(from *guest, to netip.Addr, port uint16, host string, id uint64, l func() *ledger) *caller {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			l().connections.Add(1)
			return from.dial(ctx, to, port)
		},
		DisableCompression: true, MaxIdleConnsPerHost: 1, MaxConnsPerHost: 1,
	}
	return &caller{host: host, path: "/work", client: &http.Client{Transport: transport, Timeout: patience}, id: id, ledger: l}
}

// perConnection is how many requests go over a connection.
const perConnection = 100

// ask makes the next request, and checks its answer. A status other than 200 is an error.
func (c *caller) ask(ctx context.Context) (http.Header, error) {
	n := c.n
	c.n++
	tries := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { tries++ }})
	body := message(nil, c.id, n, sizeOf(c.id, n))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.host+c.path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Close = n%perConnection == perConnection-1
	// A server may close a connection that is idle at the very moment at which a request is sent on it. That this may be sent again is
	// said by this header, to package http; that it had not arrived is checked where requests arrive.
	r.Header.Set("Idempotency-Key", fmt.Sprintf("%d-%d", c.id, n))
	response, err := c.client.Do(r)
	c.ledger().again.Add(int64(max(tries-1, 0)))
	if err != nil {
		return nil, fmt.Errorf("request %d of client %d: %w", n, c.id, err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("request %d of client %d: after %s and %d bytes of the answer: %w", n, c.id, response.Status, len(got), err)
	}
	if response.StatusCode != http.StatusOK {
		return response.Header, &statusError{response.StatusCode, strings.TrimSpace(string(got)), response.Header}
	}
	if !bytes.Equal(got, message(nil, ^c.id, n, sizeOf(^c.id, n))) {
		return nil, fmt.Errorf("request %d of client %d: %d bytes are another answer", n, c.id, len(got))
	}
	c.ledger().carried(len(body) + len(got))
	return response.Header, nil
}

// statusError is an answer that says no.
type statusError struct {
	code int
	text string
	head http.Header
}

func (e *statusError) Error() string {
	return fmt.Sprintf("answered %d %q by %s, pod %q", e.code, e.text[:min(len(e.text), 200)], e.head.Get("Server"), e.head.Get(podHeader))
}
