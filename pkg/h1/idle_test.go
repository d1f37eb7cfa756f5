package h1_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// A connection that waits for a request has one goroutine, and ends when it is to drain.
func TestIdleConnectionsHaveOneGoroutine(t *testing.T) {
	const conns = 20
	drain := netx.NewLife(context.Background())
	addr := listen(t, echo, h1.ServerConfig{Drain: drain})
	before := runtime.NumGoroutine()
	var open []net.Conn
	for range conns {
		c := dial(t, addr)
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nhost: x\r\n\r\n"))
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	wait.Until(t, time.Minute, "one goroutine for each connection", func() bool { return runtime.NumGoroutine() <= before+conns }, nil)
	drain.End(nil)
	for _, c := range open {
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
	}
}
