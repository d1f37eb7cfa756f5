package upstream

import (
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// dynamicKey is a host that is the destination of clients' connections.
type dynamicKey struct {
	to       netip.AddrPort
	internal string
	// root is the host that is told of its clients, and header of whom; nil for destinations of clients.
	root   *Host
	header proxyproto.Header
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
	if v.tells {
		key.header = proxyproto.Header{Source: client.Source, Destination: client.Destination}
	}
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.dynamic[key]
	if h == nil {
		if len(c.dynamic) >= dynamicCheck {
			c.expireLocked(now)
		}
		h = newHost(c, e)
		h.destination, h.header = to, key.header
		h.address = addressOf(e, to)
		h.gone.Store(c.gone)
		c.dynamic[key] = h
	}
	h.used.Store(now)
	return h
}

// told is the part of a host that serves one client: the host is told of it at the beginning of each connection. Load, health and
// statistics are those of the whole.
func (c *Cluster) told(h *Host, client *l7.Conn) *Host {
	if client == nil || c.Config().SocketFor(h.Endpoint()).Proxy == 0 {
		return h
	}
	key := dynamicKey{root: h, header: proxyproto.Header{Source: client.Source, Destination: client.Destination}}
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	part := c.dynamic[key]
	if part == nil {
		if len(c.dynamic) >= dynamicCheck {
			c.expireLocked(now)
		}
		part = newPart(h, key.header)
		part.gone.Store(c.gone || h.gone.Load())
		c.dynamic[key] = part
	}
	part.used.Store(now)
	return part
}

func (c *Cluster) expireLocked(now int64) {
	for key, h := range c.dynamic {
		unused := h.root.load.Active() == 0 || h.root != h && h.users() == 0
		if unused && now-h.used.Load() > int64(dynamicIdle) {
			delete(c.dynamic, key)
			h.retire(true)
		}
	}
}
