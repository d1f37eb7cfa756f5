package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

const (
	// standTime bounds how long a connection stands still before it is offered; one that cannot goes on.
	standTime = 5 * time.Second
	// movePause is the time between two rounds over the connections that are still being opened.
	movePause = 20 * time.Millisecond
	// fruitless is how many rounds in a row move nothing before the rest is left to drain.
	fruitless = 10
)

// Successor takes over connections. An error says that it has not.
type Successor interface {
	Offer(body []byte, fds []int) error
}

// errStays is a connection that cannot be handed over, and need not be tried again.
var errStays = errors.New("it cannot be handed over")

// Moved is the outcome of a hand-over.
type Moved struct {
	Connections, Tunnels, Stayed int
	// Longest is for how long a connection stood still.
	Longest time.Duration
}

// HandOver stops accepting, so that the kernel gives what is queued to the successor's listeners, and moves what is open. What
// stays goes on until Drain has its way.
func (i *Instance) HandOver(ctx context.Context, to Successor) Moved {
	i.stopAccepting()
	m := &mover{i: i, to: to, stays: map[any]bool{}}
	for idle := 0; idle < fruitless && ctx.Err() == nil; {
		left, progress := m.round(ctx)
		if left == 0 {
			break
		}
		if idle++; progress {
			idle = 0
		}
		select {
		case <-time.After(movePause):
		case <-ctx.Done():
		}
	}
	for _, o := range i.registry.snapshot() {
		if !o.gate.Moved() {
			m.out.Stayed++
		}
	}
	return m.out
}

// mover is one hand-over of one instance.
type mover struct {
	i     *Instance
	to    Successor
	stays map[any]bool // *open or hbone.Live
	out   Moved
}

// round tries everything once, and returns how much may be tried again.
func (m *mover) round(ctx context.Context) (left int, progress bool) {
	try := func(what any, move func() error) {
		if m.stays[what] {
			return
		}
		switch err := move(); {
		case err == nil:
			progress = true
		case errors.Is(err, errStays):
			m.stays[what] = true
			m.i.deps.Log.Info("a connection stays to drain", "pod", m.i.pod.Info.Name, "reason", err)
		default:
			left++
			m.i.deps.Log.Debug("a connection is not handed over yet", "pod", m.i.pod.Info.Name, "reason", err)
		}
	}
	for _, o := range m.i.registry.snapshot() {
		switch _, tunnelled, ok := o.ends(); {
		case !ok:
			left++ // it is being opened
		case !tunnelled:
			try(o, func() error { return m.plain(ctx, o) })
		}
	}
	for _, c := range m.i.pool.Connections() {
		try(c.Live, func() error {
			return m.tunnel(ctx, c.Live, &parcel{form: moveClient, pod: m.i.pod.UID, key: c.Key, expiry: c.Expiry})
		})
	}
	for _, live := range m.i.servers.list() {
		try(live, func() error { return m.tunnel(ctx, live, &parcel{form: moveServer, pod: m.i.pod.UID}) })
	}
	return left, progress
}

// plain moves a connection without a tunnel.
func (m *mover) plain(ctx context.Context, o *open) error {
	begin := time.Now()
	standing, cancel := context.WithTimeout(ctx, standTime)
	defer cancel()
	sockets, _, _ := o.ends()
	if len(sockets) != 2 {
		return fmt.Errorf("%w: one end is no socket", errStays)
	}
	if err := o.gate.Stop(standing); err != nil {
		return err
	}
	p := &parcel{form: movePlain, pod: m.i.pod.UID, conns: []carried{capture(o)}}
	if err := m.offer(p, sockets); err != nil {
		o.gate.Thaw()
		return err
	}
	o.gate.Leave()
	m.out.Connections++
	m.out.Longest = max(m.out.Longest, time.Since(begin))
	return nil
}

// tunnel moves a tunnel connection with all its streams.
func (m *mover) tunnel(ctx context.Context, live hbone.Live, p *parcel) error {
	if !live.Movable() {
		return fmt.Errorf("%w: its TLS records are crypto/tls's (HBONE_TRANSPORT)", errStays)
	}
	if p.form == moveClient && live.Idle() {
		m.stays[live] = true // a new one is opened when it is needed
		return nil
	}
	begin := time.Now()
	standing, cancel := context.WithTimeout(ctx, standTime)
	defer cancel()
	if err := live.Settle(standing); err != nil {
		return err
	}
	if err := live.Stop(standing); err != nil {
		return err
	}
	opens, err := m.stopStreams(standing, live)
	if err == nil {
		err = m.offerTunnel(live, p, opens)
	}
	if err != nil {
		live.Thaw()
		for _, o := range opens {
			o.gate.Thaw()
		}
		return err
	}
	live.Leave()
	for _, o := range opens {
		o.gate.Leave()
	}
	m.out.Tunnels++
	m.out.Connections += len(opens)
	m.out.Longest = max(m.out.Longest, time.Since(begin))
	return nil
}

// stopStreams stops the relays of all streams of a tunnel that stands still. What it returns is stopped, with an error too.
func (m *mover) stopStreams(ctx context.Context, live hbone.Live) (map[uint32]*open, error) {
	stopped := map[*open]bool{}
	for {
		byID := map[uint32]*open{}
		for _, o := range m.i.registry.snapshot() {
			if s := o.stream(); s != nil && s.Live() == live {
				byID[s.ID()] = o
			}
		}
		missing := 0
		streams := live.Streams()
		var asked sync.WaitGroup // all at once: each takes a turn of its goroutine
		stands := make([]bool, len(streams))
		for n, s := range streams {
			if o := byID[s.ID()]; o != nil && !stopped[o] {
				asked.Go(func() { stands[n] = o.gate.Stop(ctx) == nil })
			}
		}
		asked.Wait()
		for n, s := range streams {
			o := byID[s.ID()]
			if stands[n] {
				stopped[o] = true
			}
			if o == nil || !stopped[o] {
				missing++ // it is being opened, or closed
			}
		}
		out := map[uint32]*open{}
		for _, s := range streams {
			if o := byID[s.ID()]; stopped[o] {
				out[s.ID()] = o
				delete(stopped, o)
			}
		}
		if missing == 0 {
			for o := range stopped { // its stream has ended meanwhile
				o.gate.Thaw()
			}
			return out, nil
		}
		for _, o := range out {
			stopped[o] = true
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			for id, o := range byID {
				if stopped[o] {
					out[id] = o
				}
			}
			return out, fmt.Errorf("wait for streams that are being opened: %w", context.Cause(ctx))
		}
	}
}

// offerTunnel takes the state out of a tunnel, and puts it back if nobody takes it.
func (m *mover) offerTunnel(live hbone.Live, p *parcel, opens map[uint32]*open) error {
	socket, ok := live.Socket().(*net.TCPConn)
	if !ok {
		return fmt.Errorf("%w: it is no socket", errStays)
	}
	sockets := []*net.TCPConn{socket}
	state, err := live.Export()
	if err != nil {
		return err
	}
	for _, id := range state.StreamIDs() {
		o := opens[id]
		if o == nil {
			err = fmt.Errorf("stream %d is not relayed", id)
			break
		}
		apps, _, _ := o.ends()
		if len(apps) != 1 {
			err = fmt.Errorf("%w: the application's end is no socket", errStays)
			break
		}
		c := capture(o)
		c.stream = id
		p.conns = append(p.conns, c)
		sockets = append(sockets, apps[0])
	}
	if err == nil {
		p.tunnel = state
		err = m.offer(p, sockets)
	}
	if err != nil {
		return errors.Join(err, live.Restore(state))
	}
	state.Erase()
	return nil
}

// offer sends a parcel with its sockets.
func (m *mover) offer(p *parcel, sockets []*net.TCPConn) error {
	fds := make([]int, 0, len(sockets))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, s := range sockets {
		fd, err := duplicate(s)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	body := p.encode()
	defer clear(body)
	return m.to.Offer(body, fds)
}

func duplicate(s *net.TCPConn) (fd int, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	if err = errors.Join(cerr, err); err != nil {
		return -1, fmt.Errorf("duplicate a socket: %w", err)
	}
	return fd, nil
}

// ends returns the sockets of a connection whose both ends are known, downstream first, and whether one end is a tunnel.
func (o *open) ends() (sockets []*net.TCPConn, tunnelled, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.downstream == nil || o.upstream == nil {
		return nil, false, false
	}
	for _, end := range []netx.Stream{o.downstream, o.upstream} {
		switch end := end.(type) {
		case *net.TCPConn:
			sockets = append(sockets, end)
		case *hbone.Stream:
			tunnelled = true
		}
	}
	return sockets, tunnelled, true
}

// stream is the end that is a tunnel, or nil.
func (o *open) stream() *hbone.Stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, end := range []netx.Stream{o.downstream, o.upstream} {
		if s, ok := end.(*hbone.Stream); ok {
			return s
		}
	}
	return nil
}
