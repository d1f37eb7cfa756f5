package hbone

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
)

func TestCutReasons(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{io.EOF, ""},
		{ErrClosed, ""},
		{errDrained, ""},
		{net.ErrClosed, ""},
		{fmt.Errorf("HBONE from somewhere: %w", ErrPingTimeout), "peer does not answer PING"},
		{fmt.Errorf("HBONE from somewhere: %w", ErrStalled), "peer does not read"},
		{fmt.Errorf("read client preface: %w", errPrefaceTimeout), "no client preface in time"},
		{h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "PING flood"}, "PING flood"},
		{h2.ConnError{Code: h2.CompressionError, Reason: "index 4711 of a table of 3"}, "broken header compression"},
		{h2.StreamError{StreamID: 1, Reason: "of one stream only"}, ""},
	} {
		if got := CutReason(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

// A pool tells how its connections end; servers are no better than clients.
func TestHostileServersAreCut(t *testing.T) {
	for reason, flood := range map[string]func(*http2.Framer) error{
		"PING flood":     func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) },
		"SETTINGS flood": func(f *http2.Framer) error { return f.WriteSettings() },
		"GOAWAY flood":   func(f *http2.Framer) error { return f.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) },
		"PRIORITY flood": func(f *http2.Framer) error { return f.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"RST_STREAM flood": func(f *http2.Framer) error {
			return f.WriteRSTStream(1, http2.ErrCodeCancel)
		},
		"WINDOW_UPDATE on an idle stream": func(f *http2.Framer) error { return f.WriteWindowUpdate(99, 1) },
		"too many CONTINUATION frames": func(f *http2.Framer) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}); err != nil {
				return err
			}
			for {
				if err := f.WriteContinuation(1, false, nil); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(reason, func(t *testing.T) {
			var servers sync.WaitGroup
			ended := make(chan error, 10)
			p := NewPool(func(context.Context, PoolKey) (net.Conn, error) {
				near, far := carrier(t)
				servers.Go(func() { hostileServer(far, flood) })
				return near, nil
			}, PoolConfig{Ended: func(_ PoolKey, err error) { ended <- err }})
			key := PoolKey{Source: "a", Dest: netip.MustParseAddrPort("10.0.0.1:15008")}
			if _, _, err := p.Connect(deadline(t), &key, &Request{Authority: "a:1"}); err == nil {
				t.Error("the tunnel was opened")
			}
			select {
			case err := <-ended:
				if CutReason(err) != reason {
					t.Errorf("ended with %v, want %s", err, reason)
				}
			case <-deadline(t).Done():
				t.Error("still open")
			}
			p.Close()
			servers.Wait()
		})
	}
}

// hostileServer waits for a CONNECT and answers with a flood, until the client has gone.
func hostileServer(conn net.Conn, flood func(*http2.Framer) error) {
	defer conn.Close()
	framer := http2.NewFramer(conn, conn)
	framer.AllowIllegalWrites = true
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	err := framer.WriteSettings()
	for asked := false; err == nil && !asked; {
		var f http2.Frame
		if f, err = framer.ReadFrame(); err == nil {
			_, asked = f.(*http2.HeadersFrame)
		}
	}
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	for err == nil {
		err = flood(framer)
	}
	reader.Wait()
}
