package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestExpectations(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %q", len(body), r.Header.Get("Expect"))
	})
	b.apply(pod)
	c := b.client("productpage", false)
	c.Transport.(*http.Transport).ExpectContinueTimeout = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/", strings.NewReader("data"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Expect", "100-continue")
		response, err := c.Do(r)
		if err != nil {
			t.Fatal("the client was not told to go on:", err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(body) != `4 ""` {
			t.Errorf("%s", body)
		}
	}
}

// TestAnswersBeforeTheRequestsEnd: the response to a request that is still being sent passes at once, and the connection survives
// or is closed in order.
func TestAnswersBeforeTheRequestsEnd(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		b := newBed(t)
		pod := b.backend("reviews", func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex() // else it reads the body first
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, "no")
		})
		b.protocol = upstreamSame
		b.apply(pod)
		c := b.client("productpage", h2)
		for range 3 {
			slow, w := io.Pipe()
			go func() { _, _ = w.Write(bytes.Repeat([]byte("x"), 64<<10)) }() // and never the rest
			status, body, err := try(t.Context(), c, http.MethodPost, "/", slow)
			if err != nil || status != http.StatusTeapot || body != "no" {
				t.Errorf("h2 %t: %d %q %v", h2, status, body, err)
			}
			w.Close()
		}
		if status, _ := get(t, c, "/"); status != http.StatusTeapot {
			t.Errorf("%d", status)
		}
	}
}

// TestARetryInTheMiddleOfABody: the first attempt fails while the client is still sending; the next gets all of it.
func TestARetryInTheMiddleOfABody(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		b := newBed(t)
		var n atomic.Int64
		failed := make(chan struct{}, 1)
		pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1)%2 == 1 {
				_, _ = io.ReadFull(r.Body, make([]byte, 1000))
				w.WriteHeader(http.StatusServiceUnavailable)
				_ = http.NewResponseController(w).Flush()
				failed <- struct{}{}
				return
			}
			body, err := io.ReadAll(r.Body)
			fmt.Fprint(w, len(body), bytes.Count(body, []byte("a")), bytes.Count(body, []byte("b")), err)
		})
		b.protocol = upstreamHTTP2
		b.routes = to("," + retryPolicy + "}")
		b.apply(pod)
		c := b.client("productpage", h2)
		for range 3 {
			body, w := io.Pipe()
			go func() {
				_, _ = w.Write(bytes.Repeat([]byte("a"), 40<<10))
				<-failed
				_, _ = w.Write(bytes.Repeat([]byte("b"), 200<<10))
				w.Close()
			}()
			status, text, err := try(t.Context(), c, http.MethodPost, "/", body)
			if err != nil || status != 200 || text != fmt.Sprint(240<<10, 40<<10, 200<<10, error(nil)) {
				t.Errorf("h2 %t: %d %q %v", h2, status, text, err)
			}
		}
	}
}

// TestRepliesWithoutABody: statuses that have no body get none, although the route says one, and the connection goes on.
func TestRepliesWithoutABody(t *testing.T) {
	for _, status := range []int{http.StatusNoContent, http.StatusNotModified} {
		for _, h2 := range []bool{false, true} {
			b := newBed(t)
			b.routes = fmt.Sprintf(`{"match":{"prefix":"/"},"name":"default","direct_response":{"status":%d,"body":{"inline_string":"no"}}}`, status)
			b.apply(b.backend("reviews", say("hello")))
			c := b.client("productpage", h2)
			for range 2 {
				if got, body, err := try(t.Context(), c, http.MethodGet, "/", nil); err != nil || got != status || body != "" {
					t.Errorf("%d, HTTP/2 %t: %d %q, %v", status, h2, got, body, err)
				}
			}
			if r := b.records.last(t, 2); r.Sent != 0 {
				t.Errorf("%d, HTTP/2 %t: %+v", status, h2, r)
			}
		}
	}
}
