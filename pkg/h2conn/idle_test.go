package h2conn_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// A connection that waits for requests has one goroutine, and ends when it is to drain.
func TestIdleConnectionsHaveOneGoroutine(t *testing.T) {
	const conns = 20
	drain := netx.NewLife(context.Background())
	addr := listen(t, echo, h2conn.ServerConfig{Drain: drain})
	before := runtime.NumGoroutine()
	var open []net.Conn
	for range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(h2.AppendPing(h2.AppendSettings([]byte(h2.Preface)), false, [8]byte([]byte("greeting"))))
		open = append(open, c)
	}
	for _, c := range open { // the answer, its SETTINGS, shows that it is served
		head := make([]byte, h2.FrameHeaderLen)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(h2.ParseFrameHeader(head).Length)); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, time.Minute, "one goroutine for each connection", func() bool { return runtime.NumGoroutine() <= before+conns }, nil)
	drain.End(nil)
	for _, c := range open {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		rest := make([]byte, 1<<10)
		for head := rest[:h2.FrameHeaderLen]; ; {
			if _, err := io.ReadFull(c, head); err != nil {
				t.Fatal("no GOAWAY:", err)
			}
			h := h2.ParseFrameHeader(head)
			if h.Type == h2.FrameGoAway {
				break
			}
			if _, err := io.ReadFull(c, rest[len(head):len(head)+int(h.Length)]); err != nil {
				t.Fatal(err)
			}
		}
	}
}
