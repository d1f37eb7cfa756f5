package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
)

// errShare refuses a connection of a workload that has as many as there are for it.
var errShare = errors.New("the workload has its share of the node's connections (istio_ztunnel_workload_connections)")

// admitted takes one more connection from the workload's account; false says that conn was refused.
func (i *Instance) admitted(l net.Listener, conn net.Conn) bool {
	if i.account.Admit() {
		return true
	}
	direction := directionInbound
	if l == i.outbound {
		direction = directionOutbound
	}
	i.shed(budget.Connections, direction, addrPort(conn.RemoteAddr()), errShare)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset: whoever connects learns it at once, and nothing is left behind
	}
	conn.Close()
	return false
}

// shed counts and, unless that happens all the time, logs that something was refused or cut for lack of resources.
func (i *Instance) shed(why budget.Reason, direction string, peer netip.AddrPort, err error) {
	if leftOut, log := i.account.Shed(why); log {
		i.deps.AccessLog.Warn("connection shed", slog.String("pod", i.pod.Info.Namespace+"/"+i.pod.Info.Name),
			slog.Any("src.addr", peer), slog.String("direction", direction), slog.String("reason", why.String()),
			slog.Uint64("left_out", leftOut), slog.String("error", err.Error()))
	}
}

// shakers counts the handshakes that are under way by the peers' addresses, so that one of them cannot keep the others out.
type shakers struct {
	mu  sync.Mutex // guards set
	set map[netip.Addr]int
}

// enter is false for a peer that has as many as it may.
func (s *shakers) enter(peer netip.Addr, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set[peer] >= most {
		return false
	}
	s.set[peer]++
	return true
}

func (s *shakers) leave(peer netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set[peer]--; s.set[peer] <= 0 {
		delete(s.set, peer)
	}
}

// errTooManyHandshakes refuses a peer before its handshake.
var errTooManyHandshakes = errors.New("too many TLS handshakes at once")

// beginHandshake takes a place among those who shake hands, and returns how to leave it.
func (i *Instance) beginHandshake(ctx context.Context, peer netip.AddrPort) (leave func(), err error) {
	// A quarter: a flood from one address leaves the others room.
	if !i.shakers.enter(peer.Addr(), max(1, i.deps.Config.MaxHandshakes/4)) {
		err := fail(flagTLS, "%w from %s", errTooManyHandshakes, peer.Addr())
		i.shed(budget.PeerHandshakes, directionInbound, peer, err)
		return nil, err
	}
	select {
	case i.handshakes <- struct{}{}:
		return func() {
			<-i.handshakes
			i.shakers.leave(peer.Addr())
		}, nil
	case <-ctx.Done():
		i.shakers.leave(peer.Addr())
		err := fail(flagTLS, "%w: %w", errTooManyHandshakes, ctx.Err())
		i.shed(budget.Handshakes, directionInbound, peer, err)
		return nil, err
	}
}

// cuts paces what is logged of tunnel connections that were cut.
type cuts struct {
	mu  sync.Mutex // guards set
	set map[cutKind]*telemetry.Sparing
}

// cutKind has a pace of its own, so that a flood of one kind hides no other.
type cutKind struct {
	direction string
	reason    string // one of those of [hbone.CutReason], which are few
}

func (c *cuts) of(kind cutKind) *telemetry.Sparing {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.set[kind]
	if s == nil {
		s = &telemetry.Sparing{}
		c.set[kind] = s
	}
	return s
}

// cut counts and, unless that happens all the time, logs the end of a tunnel connection whose peer broke a rule or a bound. Other ends are
// nobody's fault.
func (i *Instance) cut(direction string, peer netip.AddrPort, err error) {
	reason := hbone.CutReason(err)
	if reason == "" {
		return
	}
	i.deps.Metrics.peersCut.WithLabelValues(direction, reason).Inc()
	if leftOut, log := i.cuts.of(cutKind{direction, reason}).Allow(time.Now()); log {
		i.deps.Log.Warn("tunnel connection cut", "pod", i.pod.Info.Name, "peer", peer, "direction", direction,
			"reason", reason, "left_out", leftOut, "error", err)
	}
}

// refused counts a peer that did not get through its handshake.
func (i *Instance) refused(err error) {
	i.deps.Metrics.peersCut.WithLabelValues(directionInbound, handshakeReason(err)).Inc()
}

// handshakeReason is one of a few words for what a peer did wrong before it was let in.
func handshakeReason(err error) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, errTooManyHandshakes):
		return "too many handshakes"
	case isTimeout(err):
		return "no handshake in time"
	case flagOf(err) == flagRevoked:
		return "revoked certificate"
	case errors.As(err, &authority):
		return "certificate of unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "certificate expired or not yet valid"
	case errors.As(err, &invalid):
		return "invalid certificate"
	}
	return "failed handshake"
}

// overBudget counts a connection that was cut for lack of memory.
func (i *Instance) overBudget(r *record, err error) {
	if errors.Is(err, hbone.ErrOverBudget) {
		direction := directionInbound
		if r.traffic.outbound {
			direction = directionOutbound
		}
		i.shed(budget.Memory, direction, r.traffic.src, fmt.Errorf("%w (istio_ztunnel_workload_memory)", err))
	}
}
