package h2conn_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// counted counts the frames that are written to a connection.
type counted struct {
	net.Conn
	mu    sync.Mutex // guards the rest
	skip  int        // bytes of what is no frame, or of the payload
	head  []byte
	kinds map[h2.FrameType]int
}

func (f *counted) Write(p []byte) (int, error) {
	f.mu.Lock()
	for rest := p; len(rest) > 0; {
		if f.skip > 0 {
			n := min(f.skip, len(rest))
			f.skip -= n
			rest = rest[n:]
			continue
		}
		n := min(h2.FrameHeaderLen-len(f.head), len(rest))
		f.head = append(f.head, rest[:n]...)
		rest = rest[n:]
		if len(f.head) == h2.FrameHeaderLen {
			f.skip = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
			f.kinds[h2.FrameType(f.head[3])]++
			f.head = f.head[:0]
		}
	}
	f.mu.Unlock()
	return f.Conn.Write(p)
}

func (f *counted) count(kind h2.FrameType) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kinds[kind]
}

// Neither end resets what has come to its end on both sides: peers take resets for an attack.
func TestCompleteExchangesAreNotReset(t *testing.T) {
	served := make(chan *counted, 1)
	addr := accept(t, func(ctx context.Context, c net.Conn) {
		conn := &counted{Conn: c, kinds: map[h2.FrameType]int{}}
		served <- conn
		_ = h2conn.Serve(ctx, conn, echo, h2conn.ServerConfig{})
	})
	conn := &counted{Conn: dialRaw(t, addr), skip: len(h2.Preface), kinds: map[h2.FrameType]int{}}
	k, err := h2conn.NewClient(conn, h2conn.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				if err := once(k, pattern(i%3*1000)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for name, side := range map[string]*counted{"client": conn, "server": <-served} {
		if n := side.count(h2.FrameRSTStream); n > 0 {
			t.Errorf("the %s has reset %d streams", name, n)
		}
		if n := side.count(h2.FrameHeaders); n != 4000 {
			t.Errorf("the %s has sent %d messages", name, n)
		}
	}
}

// once makes a request as a proxy does and ends it as soon as it can.
func once(k httpmsg.ClientConn, body []byte) error {
	s, err := k.Open(context.Background(), request("POST", "/", int64(len(body))), len(body) == 0)
	if err != nil {
		return err
	}
	defer s.Close()
	if len(body) > 0 {
		if _, err := s.Write(body); err != nil {
			return err
		}
		if err := s.Finish(nil); err != nil {
			return err
		}
	}
	if _, err := s.Response(context.Background(), nil); err != nil {
		return err
	}
	for !s.Ended() {
		if _, err := s.Read(make([]byte, 4096)); err != nil && err != io.EOF { //nolint:errorlint // as it is
			return err
		}
	}
	return nil
}
