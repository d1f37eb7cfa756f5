package upstream

import (
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// dynamicKey is a host that is the destination of clients' connections.
type dynamicKey struct {
	to       netip.AddrPort
	internal string
}

// How long such a host is kept without requests, and how many there may be before that is looked after.
const (
	dynamicIdle  = time.Minute
	dynamicCheck = 64
)

// destination is the host where the client wanted to go.
func (c *Cluster) destination(v *view, client *l7.Conn) *Host {
	if client == nil || !client.Destination.IsValid() {
		c.stats.rqNoneHealthy.Add(1)
		return nil
	}
	e := v.onConn
	if e == nil {
		e = &l7.Endpoint{}
	}
	to := client.Destination
	if e.Internal == "" && v.conf.PortOverride != 0 {
		to = netip.AddrPortFrom(to.Addr(), v.conf.PortOverride)
	}
	key := dynamicKey{to: to, internal: e.Internal}
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.dynamic[key]
	if h == nil {
		if len(c.dynamic) >= dynamicCheck {
			c.expireLocked(now)
		}
		h = newHost(c, e)
		h.destination = to
		h.address = addressOf(e, to)
		h.gone.Store(c.gone)
		c.dynamic[key] = h
	}
	h.used.Store(now)
	return h
}

func (c *Cluster) expireLocked(now int64) {
	for key, h := range c.dynamic {
		if h.load.Active() == 0 && now-h.used.Load() > int64(dynamicIdle) {
			delete(c.dynamic, key)
			h.retire(true)
		}
	}
}
