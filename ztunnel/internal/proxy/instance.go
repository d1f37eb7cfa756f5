package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// errPolicyChange closes connections that a new policy denies.
var errPolicyChange = errors.New("connection closed due to policy change")

// errDrained ends what outlives a drain.
var errDrained = errors.New("connection closed: the proxy is shutting down")

// reportEvery is how often the bytes of open connections reach the metrics.
const reportEvery = 5 * time.Second

// Instance serves one pod.
type Instance struct {
	// immutable after Start
	deps       Deps
	pod        Pod
	local      *Local
	registry   *registry
	pool       *hbone.Pool
	companion  io.Closer
	handshakes chan struct{} // a token per unfinished TLS handshake
	shakers    shakers
	cuts       cuts
	account    *budget.Account // of what the node has
	peers      peers
	servers    tunnels

	outbound, plaintext, tunnels net.Listener

	ctx   context.Context // ends when open connections must
	abort context.CancelCauseFunc

	drain     chan struct{} // closed when draining starts
	drainOnce sync.Once
	closeOnce sync.Once      // of the listeners
	leaveOnce sync.Once      // of the companion
	endOnce   sync.Once      // of the account
	accepts   sync.WaitGroup // accept loops and adoptions; they add to conns
	entry     sync.Mutex     // guards shut
	shut      bool           // nothing comes in any more
	conns     netx.Workers   // goroutines of connections, and connections, which may sleep
	release   func()         // immutable: conns.Release
	watchers  sync.WaitGroup // goroutines that end with ctx
}

func newInstance(deps Deps, pod Pod) *Instance {
	i := &Instance{
		deps: deps, pod: pod, registry: newRegistry(), drain: make(chan struct{}),
		local:      &Local{store: deps.Store, node: deps.Config.Node, info: pod.Info, timeout: deps.Config.LocalTimeout},
		handshakes: make(chan struct{}, deps.Config.MaxHandshakes),
		peers:      peers{set: map[hbone.Secured]peer{}},
		servers:    tunnels{set: map[hbone.Live]struct{}{}},
		shakers:    shakers{set: map[netip.Addr]int{}},
		cuts:       cuts{set: map[cutKind]*telemetry.Sparing{}},
		account:    deps.Budget.Open(budget.Name{Namespace: pod.Info.Namespace, Pod: pod.Info.Name}),
	}
	i.ctx, i.abort = context.WithCancelCause(context.Background())
	i.release = i.conns.Release
	pool := deps.Config.Pool
	pool.Budget = i.account
	pool.Ended = func(key hbone.PoolKey, err error) { i.cut(directionOutbound, key.Dest, err) }
	i.pool = hbone.NewPool(i.dialPeer, pool)
	return i
}

// namespaced is a Network that can run code in its namespace.
type namespaced interface{ Do(func() error) error }

func (i *Instance) listen(ctx context.Context) error {
	if ns, ok := i.pod.Net.(namespaced); ok {
		if err := ns.Do(migrateQueued); err != nil {
			i.deps.Log.Warn("queued connections may be lost when the proxy is replaced", "pod", i.pod.Info.Name, "error", err)
		}
	}
	for _, l := range []struct {
		port int
		into *net.Listener
	}{{OutboundPort, &i.outbound}, {PlaintextPort, &i.plaintext}, {l4.HBONEPort, &i.tunnels}} {
		listener, err := i.listenPort(ctx, l.port)
		if err != nil {
			return err
		}
		*l.into = listener
	}
	return nil
}

// listenPort takes IPv4 alone where the pod has no IPv6.
func (i *Instance) listenPort(ctx context.Context, port int) (net.Listener, error) {
	if i.deps.Config.IPv6 {
		listener, err := i.pod.Net.Listen(ctx, "tcp", net.JoinHostPort("::", strconv.Itoa(port)))
		if err == nil {
			return listener, nil
		}
	}
	listener, err := i.pod.Net.Listen(ctx, "tcp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return listener, nil
}

func (i *Instance) closeListeners() {
	for _, l := range []net.Listener{i.outbound, i.plaintext, i.tunnels} {
		if l != nil {
			l.Close()
		}
	}
}

func (i *Instance) serve() {
	i.accepts.Go(func() { i.accept(i.outbound, i.serveOutbound) })
	i.accepts.Go(func() { i.accept(i.plaintext, i.servePlaintext) })
	i.accepts.Go(func() { i.accept(i.tunnels, i.serveTunnels) })
	i.watchers.Go(i.watchPolicies)
	i.watchers.Go(i.reportBytes)
	i.watchers.Go(i.watchRevocations)
}

// accept serves each connection on a goroutine of its own until the listener is closed. What serve carries, of which it tells, ends
// with over.
func (i *Instance) accept(l net.Listener, serve func(context.Context, *net.TCPConn) (carried bool)) {
	pause := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = 5 * time.Millisecond
			if !i.admitted(l, conn) {
				continue
			}
			i.conns.Hold()
			i.conns.Go(func() { // little on the stack: see carry
				if tcp, ok := conn.(*net.TCPConn); !ok || !serve(i.ctx, tcp) {
					i.refuse(l, conn)
					i.account.Leave()
					i.conns.Release()
				}
			})
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors or memory: wait for some to be given back.
		i.deps.Log.Warn("accept", "pod", i.pod.Info.Name, "listener", l.Addr().String(), "error", err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-i.drain:
			return
		}
	}
}

// refuse ends a connection that was not carried, or carries nothing any more. To an application that is a reset: one without framing of
// its own would take an orderly end for an empty answer.
func (i *Instance) refuse(l net.Listener, conn net.Conn) {
	if l == i.tunnels {
		conn.Close() // what a peer was told last may still be under way
	} else {
		netx.Abort(conn)
	}
}

// watchPolicies closes inbound connections that are no longer allowed, whenever the policies or the list of those that
// the workload is under change.
func (i *Instance) watchPolicies() {
	state := i.deps.Store.Load()
	generation, workload := state.PolicyGeneration(), i.local.find(state)
	for {
		select {
		case <-state.Superseded():
		case <-i.ctx.Done():
			return
		}
		state = i.deps.Store.Load()
		now := i.local.find(state)
		if now == nil || now == workload && state.PolicyGeneration() == generation {
			continue
		}
		generation, workload = state.PolicyGeneration(), now
		policies := state.PoliciesFor(now)
		for _, o := range i.registry.snapshot() {
			if o.inbound && !policies.Check(o.check).Allowed {
				o.life.End(errPolicyChange)
			}
		}
	}
}

// reportBytes keeps the byte counters of long connections current.
func (i *Instance) reportBytes() {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, o := range i.registry.snapshot() {
				o.record.report()
			}
		case <-i.ctx.Done():
			return
		}
	}
}

// Connections lists what is open, each by source.
func (i *Instance) Connections() (inbound, outbound []ConnInfo) {
	return i.registry.list(true), i.registry.list(false)
}

// Pod is what the instance serves.
func (i *Instance) Pod() Pod { return i.pod }

// enter is called by an adoption, which adds to conns; false says that it is too late.
func (i *Instance) enter() bool {
	i.entry.Lock()
	defer i.entry.Unlock()
	if !i.shut {
		i.accepts.Add(1)
	}
	return !i.shut
}

// stopAccepting returns when nothing comes in any more.
func (i *Instance) stopAccepting() {
	i.entry.Lock()
	i.shut = true
	i.entry.Unlock()
	i.closeOnce.Do(i.closeListeners)
	i.accepts.Wait()
}

// Drain stops accepting, tells tunnel peers to go elsewhere, waits for connections to end until ctx does, then ends
// them. It returns when nothing of the instance is left. Whoever calls it again waits for the same; connections go when the first of the
// contexts ends.
func (i *Instance) Drain(ctx context.Context) {
	i.closeOnce.Do(i.closeListeners)
	i.drainOnce.Do(func() { close(i.drain) })
	i.stopAccepting()
	i.leaveOnce.Do(func() {
		if i.companion != nil {
			i.companion.Close()
		}
	})
	idle := make(chan struct{})
	go func() {
		i.conns.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	i.abort(errDrained)
	i.pool.Close()
	<-idle
	i.watchers.Wait()
	i.endOnce.Do(i.account.Close)
}
