package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Ends of relayed connections that are ours.
var (
	errIdle   = errors.New("nothing was sent for the idle timeout")
	errOld    = errors.New("the connection has lasted as long as it may")
	errPolicy = errors.New("closed due to policy change")
)

// Open connections are looked at every tick, and reported when the interval of their chain, by default progressEvery, is over.
const (
	progressTick  = time.Second
	progressEvery = 5 * time.Second
)

// relayed is a connection whose bytes are forwarded.
type relayed struct {
	// immutable
	d       *downstream
	chain   *l7.Chain
	up      netx.Stream
	release func()
	idle    time.Duration
	cancel  atomic.Pointer[context.CancelCauseFunc]
	bytes   netx.Counters

	mu       sync.Mutex // guards the rest, and reports
	record   *Record
	ended    bool
	reported time.Duration // into the connection
}

// connectTCP decides about a connection of a TCP chain and connects its host. Else the record says why not.
func (d *downstream) connectTCP(ctx context.Context, chain *l7.Chain) (*relayed, *Record) {
	s := d.srv
	snap := s.current.Load()
	r := d.record(KindConnection, chain)
	decision := snap.cfg.DecideTCP(chain, &d.conn, s.deps.Rand)
	fail := func(flags l7.Flags, termination string) (*relayed, *Record) {
		r.Flags |= flags
		r.Termination = termination
		r.Duration = s.deps.Clock().Sub(d.start)
		return nil, r
	}
	r.ClusterName, r.Cluster = decision.ClusterName, decision.Cluster
	cluster := snap.clusters[decision.ClusterName]
	switch {
	case decision.Denied:
		return fail(decision.Flags, decision.Details)
	case decision.Cluster == nil || cluster == nil:
		return fail(l7.FlagNoCluster, "")
	}
	if details, ok := d.consult(ctx, snap, chain); !ok {
		return fail(l7.FlagUnauthorized, details)
	}
	choice := upstream.Choice{Rand: s.deps.Rand, Hash: decision.Hash, HashOK: decision.HashOK, Conn: &d.conn, Attempts: 3}
	for attempt := uint32(0); ; attempt++ {
		host := cluster.Pick(&choice)
		if host == nil {
			return fail(l7.FlagNoHealthyUpstream, "")
		}
		r.Endpoint, r.UpstreamHost = host.Endpoint(), host.Address()
		nc, release, err := cluster.Dial(ctx, host)
		if err == nil {
			up, ok := nc.(netx.Stream)
			if !ok {
				up = halfless{nc}
			}
			r.UpstreamLocal = addrPort(nc.LocalAddr())
			return &relayed{d: d, chain: chain, up: up, release: release, idle: chain.TCP.IdleTimeout, record: r}, nil
		}
		failure := upstream.Broken(err)
		r.UpstreamFailure = failure.Transport
		if ctx.Err() != nil || attempt+1 >= max(chain.TCP.MaxConnectAttempts, 1) || failure.Reason == upstream.Overflow {
			s.deps.Log.Debug("connect", "cluster", decision.ClusterName, "host", host.Address(), "error", err)
			return fail(failure.Reason.Flags()|l7.FlagUpstreamRetryLimit, "")
		}
		choice.Tried = append(choice.Tried, host)
	}
}

// relay carries the bytes until both directions ended.
func (t *relayed) relay(ctx context.Context, conn netx.Stream) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.cancel.Store(&cancel)
	s := t.d.srv
	s.relays.add(t)
	defer s.relays.remove(t)
	s.recheck(t) // the policies may have changed while the host was dialled, when nobody could ask about this connection
	t.report(s.deps.Observer.Opened)
	if t.idle > 0 {
		stop := watchIdle(t.idle, &t.bytes, func() { cancel(errIdle) })
		defer stop()
	}
	if limit := t.chain.TCP.MaxDuration; limit > 0 {
		timer := time.AfterFunc(limit, func() { cancel(errOld) })
		defer timer.Stop()
	}
	err := netx.Relay(ctx, conn, t.up, &t.bytes)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	t.end(err)
}

// end closes the host's side and gives the final account.
func (t *relayed) end(err error) {
	t.up.Close()
	t.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	r := t.record
	var broken *netx.RelayError
	switch {
	case err == nil:
	case errors.As(err, &broken) && broken.Upstream:
		r.Flags, r.Termination = l7.FlagUpstreamConnectionTermination, err.Error()
	case errors.As(err, &broken):
		r.Flags, r.Termination = l7.FlagDownstreamTermination, err.Error()
	case errors.Is(err, errIdle):
		r.Flags, r.Termination = l7.FlagStreamIdleTimeout, "tcp_session_idle_timeout"
	case errors.Is(err, errOld):
		r.Flags, r.Termination = l7.FlagDurationTimeout, "max_duration_timeout"
	default:
		r.Termination = err.Error()
	}
	t.fillLocked()
	t.d.srv.deps.Observer.Ended(r)
}

func (t *relayed) fillLocked() {
	t.record.BytesReceived, t.record.BytesSent = t.bytes.Sent.Load(), t.bytes.Received.Load()
	t.record.Duration = t.d.srv.deps.Clock().Sub(t.d.start)
}

// report tells the state so far, unless the end was told.
func (t *relayed) report(to func(*Record)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.fillLocked()
		t.reported = t.record.Duration
		to(t.record)
	}
}

// progress reports the state when it is time.
func (t *relayed) progress(to func(*Record)) {
	t.mu.Lock()
	due := t.d.srv.deps.Clock().Sub(t.d.start)-t.reported >= t.chain.ReportEvery(progressEvery)
	t.mu.Unlock()
	if due {
		t.report(to)
	}
}

// watchIdle calls idle when nothing was moved for the limit; the result ends the watch.
func watchIdle(limit time.Duration, bytes *netx.Counters, idle func()) (stop func()) {
	var mu sync.Mutex
	var seen uint64
	stopped := false
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(limit, func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		if now := bytes.Sent.Load() + bytes.Received.Load(); now != seen {
			seen = now
			timer.Reset(limit)
			return
		}
		idle()
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// relays are the open connections of TCP chains.
type relays struct {
	mu   sync.Mutex // guards open
	open map[*relayed]struct{}
}

func (r *relays) add(t *relayed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[t] = struct{}{}
}

func (r *relays) remove(t *relayed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, t)
}

func (r *relays) all() []*relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*relayed, 0, len(r.open))
	for t := range r.open {
		out = append(out, t)
	}
	return out
}

// report tells the progress of all until ctx ends.
func (r *relays) report(ctx context.Context, to Observer) {
	ticker := time.NewTicker(progressTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, t := range r.all() {
				t.progress(to.Progress)
			}
		case <-ctx.Done():
			return
		}
	}
}

// recheck closes the connections that the policies of a new configuration do not let in. Others go on under the chain that
// they began with.
func (s *Server) recheck(open ...*relayed) {
	cfg := s.current.Load().cfg
	for _, t := range open {
		d := t.d
		chain, ok := cfg.Chain(d.listener, &d.conn, d.sniffed)
		if !ok || chain == t.chain {
			continue // what was decided by this chain holds
		}
		details, admitted := chain.Admit(&d.conn)
		if admitted && chain.TCP != nil {
			decision := cfg.DecideTCP(chain, &d.conn, s.deps.Rand)
			admitted, details = !decision.Denied, decision.Details
		}
		if cancel := t.cancel.Load(); !admitted && cancel != nil {
			(*cancel)(fmt.Errorf("%w: %s", errPolicy, details))
		}
	}
}

var _ net.Conn = halfless{}
