package upstream

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

var errOverflow = errors.New("a circuit breaker is open")

// conn is one connection that carries requests.
type conn struct {
	// immutable
	host       *Host
	cc         httpmsg.ClientConn
	nc         net.Conn
	shared     bool          // of the pool of connections that carry many requests
	multiplex  bool          // speaks HTTP/2
	tunnel     *hbone.Stream // that carries it; nil for a direct connection
	local      netip.AddrPort
	identity   string
	made       time.Time
	generation uint64

	requests atomic.Uint32
	users    int       // of a shared connection; guarded by its pool
	since    time.Time // when it became idle; guarded by its pool
	closed   atomic.Bool
	stale    atomic.Int64 // since when the tunnel of a shared connection looks stale, in unix nanoseconds; 0 when it doesn't
}

// staleFor is how long the tunnel of a shared connection must look stale: it also does while something is waiting to be read.
const staleFor = 100 * time.Millisecond

// stranded is whether the tunnel that carries the connection is about to end.
func (c *conn) stranded() bool {
	if !c.tunnel.Stale() {
		if c.shared {
			c.stale.Store(0)
		}
		return false
	}
	if !c.shared {
		return true
	}
	now := time.Now().UnixNano()
	c.stale.CompareAndSwap(0, now)
	since := c.stale.Load()
	return since != 0 && now-since > int64(staleFor)
}

// add counts a connection that was made.
func (h *Host) add(c *conn) {
	h.mu.Lock()
	h.open[c] = struct{}{}
	h.mu.Unlock()
	h.stats.cxTotal.Add(1)
	h.stats.cxActive.Add(1)
	h.cluster.stats.cxTotal.Add(1)
}

// close ends a connection that nobody uses; the place is given back.
func (c *conn) close() {
	if c.closed.Swap(true) {
		return
	}
	_ = c.cc.Close() // nothing was to be sent any more
	h := c.host
	h.mu.Lock()
	delete(h.open, c)
	h.mu.Unlock()
	h.stats.cxActive.Add(-1)
	h.cluster.gauges.connections.give()
}

// worn is whether the connection is not to be used again: it has served as many requests, or as long, as it may, or the tunnel
// that carries it ends soon.
func (c *conn) worn() bool {
	if c.tunnel != nil && c.stranded() {
		return true
	}
	conf := c.host.cluster.Config()
	return conf.MaxPerConn > 0 && c.requests.Load() >= conf.MaxPerConn || conf.MaxLife > 0 && time.Since(c.made) >= conf.MaxLife
}
