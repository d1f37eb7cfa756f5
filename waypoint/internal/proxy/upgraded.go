package proxy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// upgraded is an open tunnel that a request has become: a WebSocket, or a CONNECT. Policies that come later are asked about that
// request again.
type upgraded struct {
	// immutable
	c      *httpConn
	head   *httpmsg.Head // as it came
	start  time.Time
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards what it was judged by last
	listener *l7.Listener
	routes   *l7.Routes
}

// upgrades are those that are open.
type upgrades struct {
	mu   sync.Mutex // guards open
	open map[*upgraded]struct{}
}

func (u *upgrades) add(t *upgraded) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open == nil {
		u.open = map[*upgraded]struct{}{}
	}
	u.open[t] = struct{}{}
}

func (u *upgrades) remove(t *upgraded) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.open, t)
}

func (u *upgrades) all() []*upgraded {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]*upgraded, 0, len(u.open))
	for t := range u.open {
		out = append(out, t)
	}
	return out
}

// keepHead copies the head of a request that may become a tunnel, before it is changed; nil for others.
func keepHead(h *httpmsg.Head) *httpmsg.Head {
	if h.Upgrade == "" && h.Method != "CONNECT" {
		return nil
	}
	out := *h
	out.Method, out.Scheme, out.Authority, out.Path, out.Upgrade = strings.Clone(h.Method), strings.Clone(h.Scheme),
		strings.Clone(h.Authority), strings.Clone(h.Path), strings.Clone(h.Upgrade)
	out.Header = httpmsg.Header{}
	for key, value := range h.Header.All() {
		out.Header.Add(strings.Clone(key), strings.Clone(value))
	}
	return &out
}

// rejudge closes the tunnel if the policies of the newest configuration do not let its request in. Everything else goes on as it
// began.
func (t *upgraded) rejudge(s *Server) {
	cfg := s.current.Load().cfg
	d := t.c.downstream
	chain, ok := cfg.Chain(d.listener, &d.conn, d.sniffed)
	if !ok || chain.HTTP == nil {
		return
	}
	listener, routes := cfg.Listeners[d.listener], cfg.Routes[chain.HTTP.RouteConfig]
	t.mu.Lock()
	same := t.listener == listener && t.routes == routes
	t.listener, t.routes = listener, routes
	t.mu.Unlock()
	if same {
		return
	}
	head := *t.head
	head.Header = httpmsg.Header{}
	head.Header.CopyFrom(&t.head.Header)
	var r l7.Request
	r.Begin(&head, &d.conn)
	if details, ok := cfg.Permits(chain, &r, t.start, s.deps.Rand); !ok {
		t.cancel(fmt.Errorf("%w: %s", errPolicy, details))
	}
}
