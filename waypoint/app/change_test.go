package app_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

// load sends requests until it is ended, and counts what failed.
type load struct {
	done   chan struct{}
	wait   sync.WaitGroup
	sent   atomic.Int64
	mu     sync.Mutex // guards failed
	failed []string
}

func startLoad(url string, clients int) *load {
	l := &load{done: make(chan struct{})}
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for range clients {
		l.wait.Go(func() {
			for {
				select {
				case <-l.done:
					transport.CloseIdleConnections()
					return
				default:
				}
				l.sent.Add(1)
				if err := l.once(client, url); err != nil {
					l.mu.Lock()
					l.failed = append(l.failed, err.Error())
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

func (l *load) once(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return err
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.done)
	l.wait.Wait()
	if len(l.failed) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(l.failed), l.sent.Load(), l.failed[0])
	}
	t.Logf("%d requests", l.sent.Load())
}

// Routes, clusters, endpoints and the listener itself change under load, also in an order that would leave a route without its
// cluster for a moment. No request fails, and a response that is being received goes on.
func TestChangesLoseNoRequest(t *testing.T) {
	g := newGateway(t, nil)
	g.ready(t)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := io.WriteString(w, "tick\n"); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-time.After(10 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer slow.Close()
	g.set(t, map[string]proto.Message{"endpoints " + reviews: endpoints(t, reviews, strings.TrimPrefix(slow.URL, "http://"))})
	var stream *http.Response
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	eventually(t, "the stream is open", func() error {
		response, err := (&http.Client{Transport: transport}).Get(g.url + "/stream")
		if err != nil {
			return err
		}
		first := make([]byte, 5)
		if _, err = io.ReadFull(response.Body, first); err == nil && string(first) != "tick\n" {
			err = fmt.Errorf("%q", first)
		}
		if err != nil {
			response.Body.Close()
			return err
		}
		stream = response
		return nil
	})
	defer stream.Body.Close()
	g.set(t, map[string]proto.Message{"endpoints " + reviews: endpoints(t, reviews, backend(t, "v1"))})
	g.answers(t, "/a", "v1 /a")

	l := startLoad(g.url+"/a", 4)
	previous := reviews
	for i := range 15 {
		next := fmt.Sprintf("outbound|9080|v%d|reviews.default.svc.cluster.local", i)
		// The cluster, its endpoints and the route that leads to it, at once; the former cluster goes in the same response as
		// clusters are sent, before the route.
		g.set(t, map[string]proto.Message{
			"cluster " + next: edsCluster(t, next), "endpoints " + next: endpoints(t, next, backend(t, next)), "route http.8080": routes("http.8080", "/", next),
			"cluster " + previous: nil, "endpoints " + previous: nil,
		})
		g.answers(t, "/a", next+" /a")
		g.set(t, map[string]proto.Message{"endpoints " + next: endpoints(t, next, backend(t, "other"))})
		g.answers(t, "/a", "other /a")
		changed := gatewayListener(t, strings.TrimPrefix(g.url, "http://"), "http.8080", g.logPath)
		changed.StatPrefix = fmt.Sprint(i)
		g.set(t, map[string]proto.Message{"listener 0.0.0.0_8080": changed})
		previous = next
	}
	l.end(t)
	if refused := g.refused(); len(refused) > 0 {
		t.Errorf("refused: %q", refused)
	}
	for range 3 {
		line := make([]byte, 5)
		if _, err := io.ReadFull(stream.Body, line); err != nil || string(line) != "tick\n" {
			t.Errorf("the open response: %v, %q", err, line)
		}
	}
}
