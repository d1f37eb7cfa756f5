package h2conn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// TestCancelIsNotClose cancels requests from other goroutines, several times each, while they come to their end: the stream stays its
// owner's, and the requests of others are not touched.
func TestCancelIsNotClose(t *testing.T) {
	k := dialClient(t, listen(t, echo, h2conn.ServerConfig{MaxConcurrentStreams: 250}), h2conn.ClientConfig{})
	eventually(t, "the server's limits are known", func() bool { return k.Free() > 200 })
	body := pattern(1000)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for round := range 300 {
				s, err := k.Open(t.Context(), request("POST", "/", int64(len(body))), false)
				if err != nil {
					t.Error(err)
					return
				}
				var cancels sync.WaitGroup
				if cancelled := (worker+round)%2 == 0; cancelled {
					for range 2 {
						cancels.Go(s.Cancel)
					}
				} else if !echoes(t, s, body) {
					return
				}
				_, _ = s.Write(body)
				_, _ = s.Response(t.Context(), nil)
				_, _ = io.Copy(io.Discard, s)
				cancels.Wait()
				s.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, "no request is open", func() bool { return k.Active() == 0 })
}

// echoes is whether a request that nobody cancels gets its own answer.
func echoes(t *testing.T, s httpmsg.ClientStream, body []byte) bool {
	_, err := s.Write(body)
	if err == nil {
		err = s.Finish(nil)
	}
	var h *httpmsg.Head
	if err == nil {
		h, err = s.Response(t.Context(), nil)
	}
	var got []byte
	if err == nil {
		got, err = io.ReadAll(s)
	}
	if err != nil || h.Status != 200 || string(got) != string(body) {
		t.Errorf("%+v, %d bytes, %v", h, len(got), err)
		return false
	}
	return true
}

// TestCancelWakes whoever waits for the stream: for the window, for a head, for the body.
func TestCancelWakes(t *testing.T) {
	k := dialClient(t, listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		if s.Request().Path == "/head" {
			_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
			_ = s.Flush()
		}
		<-s.Gone()
	}, h2conn.ServerConfig{}), h2conn.ClientConfig{})
	for path, wait := range map[string]func(s httpmsg.ClientStream) error{
		"/window": func(s httpmsg.ClientStream) error {
			_, err := s.Write(make([]byte, 4<<20))
			return err
		},
		"/answer": func(s httpmsg.ClientStream) error {
			_, err := s.Response(context.Background(), nil)
			return err
		},
		"/head": func(s httpmsg.ClientStream) error {
			if _, err := s.Response(context.Background(), nil); err != nil {
				return err // the cancellation came first
			}
			_, err := io.ReadAll(s)
			return err
		},
	} {
		s, err := k.Open(t.Context(), request("POST", path, -1), false)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- wait(s) }()
		s.Cancel()
		if err := <-done; err == nil {
			t.Errorf("%s went on", path)
		}
		s.Close()
	}
}

// TestInterrupt ends the wait for a body that does not come; the answer is still sent.
func TestInterrupt(t *testing.T) {
	result := make(chan error, 1)
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		waiting := make(chan struct{})
		go func() {
			<-waiting
			s.Interrupt()
		}()
		_, err := s.Read(make([]byte, 2))
		close(waiting)
		if err == nil {
			_, err = s.Read(make([]byte, 2))
		}
		result <- err
		_ = s.Respond(&httpmsg.Head{Status: 408, ContentLength: -1}, true)
	}, h2conn.ServerConfig{})
	p := dialPeer(t, addr)
	_ = p.headers(1, false, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "x", "content-length", "10")
	_ = p.WriteData(1, false, []byte("ab"))
	p.until(t, func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		return ok && h.PseudoValue("status") == "408"
	})
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// TestPeersThatDoNotRead is a client that opens its windows and takes nothing; the connection ends though it goes on talking.
func TestPeersThatDoNotRead(t *testing.T) {
	done := make(chan error, 1)
	addr := accept(t, func(ctx context.Context, c net.Conn) {
		done <- h2conn.Serve(ctx, c, func(_ context.Context, s httpmsg.ServerStream) {
			_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
			for piece := make([]byte, 64<<10); ; {
				if _, err := s.Write(piece); err != nil {
					return
				}
			}
		}, h2conn.ServerConfig{Options: h2conn.Options{WriteTimeout: 200 * time.Millisecond}})
	})
	c := dialRaw(t, addr)
	t.Cleanup(func() { c.Close() })
	p := newPeer(c)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = p.WriteWindowUpdate(0, 1<<31-1-65535)
	_ = p.headers(1, true, get()...)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("ended with %v", err)
	}
}
