package hbone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/tlsrec"
)

// ErrMoved is how everything of a connection ends that goes on in another process. It is [netx.ErrMoved].
var ErrMoved = netx.ErrMoved

// errStopped is what a writer who parks is told while the connection stands still.
var errStopped = errors.New("hbone: the connection stands still")

// Live is an open connection, for whoever hands it to another process. It is comparable. The order is Settle, Stop, then the relays
// of all streams are stopped, Export; in the end Leave or Thaw.
type Live struct{ c *conn }

// Live returns the connection that carries the stream.
func (s *Stream) Live() Live { return Live{s.c} }

// ID is the stream's number on its connection.
func (s *Stream) ID() uint32 { return s.id }

// Live returns the connection.
func (cc *ClientConn) Live() Live { return Live{cc.c} }

// Movable reports whether the connection's TLS state can be exported: that of [Records].
func (l Live) Movable() bool {
	_, ok := innermost(l.c.nc).(*tlsrec.Conn)
	return ok
}

// Done is closed when the connection has ended.
func (l Live) Done() <-chan struct{} { return l.c.done }

// until waits for a condition under mu, which it holds when it returns.
func (c *conn) until(ctx context.Context, what string, ok func() bool) error {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.still.Broadcast()
	})()
	c.mu.Lock()
	for !ok() {
		switch {
		case c.err != nil:
			return fmt.Errorf("%s: %w", what, c.err)
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		c.still.Wait()
	}
	return nil
}

// Settle opens no more streams and waits for the answers that are due. Applications that wait beside a stream that is open go on to
// relay it.
func (l Live) Settle(ctx context.Context) error {
	c := l.c
	c.mu.Lock()
	c.retired = true
	c.mu.Unlock()
	err := c.until(ctx, "wait for the answers of the peer", func() bool {
		for _, s := range c.streams {
			if s.reply != nil {
				return false
			}
		}
		return true
	})
	streams := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
	}
	c.mu.Unlock()
	if err != nil {
		l.Thaw()
		return err
	}
	for _, s := range streams {
		s.rmu.Lock()
		if k := s.sink; k != nil && k.done == nil && k.wake != nil {
			k.wake()
		}
		s.rmu.Unlock()
	}
	return nil
}

// Stop returns when nothing is read any more, what has been read is delivered, and nothing is written. After an error the connection
// goes on.
func (l Live) Stop(ctx context.Context) error {
	c := l.c
	c.mu.Lock()
	c.halt.Store(true)
	c.mu.Unlock()
	c.nc.SetReadDeadline(time.Unix(1, 0))
	err := c.until(ctx, "wait for the end of a frame", func() bool { return c.parked })
	if err == nil {
		c.stopped = true
		c.turn.Broadcast()
		for _, s := range c.streams {
			s.sendable.Broadcast()
		}
		writing := c.writing
		c.mu.Unlock()
		if writing {
			c.nc.SetWriteDeadline(time.Unix(1, 0))
		}
		err = c.until(ctx, "wait for the end of a write", func() bool { return !c.writing })
	}
	c.mu.Unlock()
	if err != nil {
		l.Thaw()
	}
	return err
}

// Streams lists the open streams of a connection that stands still.
func (l Live) Streams() []*Stream {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	all := make([]*Stream, 0, len(l.c.streams))
	for _, s := range l.c.streams {
		all = append(all, s)
	}
	return all
}

// standStill holds the reader, between frames, until it goes on, which is nil, or the connection has ended or left.
func (c *conn) standStill() error {
	c.pass()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parked = true
	c.still.Broadcast()
	for c.halt.Load() && c.err == nil {
		c.still.Wait()
	}
	c.parked = false
	return c.err
}

// Export takes the connection's state out of it, TLS keys included: the connection is of no use until Thaw puts them back. The
// relays of all its streams stand still.
func (l Live) Export() (*State, error) {
	c := l.c
	tls, ok := innermost(c.nc).(*tlsrec.Conn)
	if !ok {
		return nil, errors.New("export an HBONE connection: its TLS records are not ours")
	}
	f := &frozen{client: c.client, reader: c.rd.State()}
	f.table, f.tableLimit = c.dec.Table()
	c.mu.Lock()
	if c.err != nil || !c.parked || !c.stopped || c.writing {
		err := errors.Join(errors.New("it does not stand still"), c.err)
		c.mu.Unlock()
		return nil, fmt.Errorf("export an HBONE connection: %w", err)
	}
	if c.ping.onAck != nil {
		c.mu.Unlock()
		return nil, errors.New("export an HBONE connection: it is about to end")
	}
	f.peer, f.settled, f.lastID = c.peer, c.settled, c.lastID
	f.goAway, f.goAwayN = c.goAway, c.goAwayN
	f.send, f.recv, f.deferred = c.send.State(), c.recv.State(), c.deferred
	f.out = append([]byte(nil), c.out...)
	streams := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
		f.streams = append(f.streams, frozenStream{
			id: s.id, send: s.send.State(), recv: s.recv.State(), localEnded: s.localEnded, remoteEnded: s.remoteEnded, answered: s.answered,
		})
	}
	c.mu.Unlock()
	for i, s := range streams {
		s.rmu.Lock()
		f.streams[i].eof, f.streams[i].queue = s.eof, s.queue.Bytes()
		s.rmu.Unlock()
	}
	exported, err := tls.Export()
	if err != nil {
		return nil, fmt.Errorf("export an HBONE connection: %w", err)
	}
	f.tls = exported
	return &State{func() *frozen { return f }}, nil
}

// Restore puts back what Export took. s is erased.
func (l Live) Restore(s *State) error {
	defer s.Erase()
	tls, ok := innermost(l.c.nc).(*tlsrec.Conn)
	if !ok {
		return errors.New("restore an HBONE connection: its TLS records are not ours")
	}
	err := tls.Restore(s.reveal().tls)
	if err != nil {
		l.c.fail(err)
	}
	return err
}

// Thaw lets the connection go on, from whichever step.
func (l Live) Thaw() {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.nc.SetReadDeadline(time.Time{})
	c.nc.SetWriteDeadline(time.Time{})
	stopped := c.stopped
	c.retired, c.stopped = false, false
	c.halt.Store(false)
	c.still.Broadcast()
	c.turn.Broadcast()
	for _, s := range c.streams {
		s.sendable.Broadcast()
	}
	if stopped && !c.writing {
		c.kick()
	}
}

// kick writes what waits, records that a deadline has kept from being sent included. Called with mu held by somebody who knows that
// nobody writes.
func (c *conn) kick() {
	c.writing = true
	go func() {
		_, err := c.write(nil)
		c.wrote(nil, err)
		c.mu.Lock()
		c.drain()
		c.mu.Unlock()
	}()
}

// Leave ends the connection here, without a word to the peer: another process goes on with it. Its relays have left before.
func (l Live) Leave() {
	c := l.c
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = ErrMoved
	close(c.done)
	c.ping.stop()
	c.dropOut()
	streams := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
		s.sendErr, s.localEnded, s.remoteEnded = ErrMoved, true, true
		s.sendable.Broadcast()
		if s.life != nil {
			s.life.End(ErrMoved)
		}
	}
	clear(c.streams)
	c.blocked = streamList{}
	c.turn.Broadcast()
	c.still.Broadcast()
	c.mu.Unlock()
	for _, s := range streams {
		s.endReceive(ErrMoved)
	}
	c.nc.Close()
}

// resumed makes the connection over nc whose state is f. Nothing is read or written yet.
func resumed(nc net.Conn, f *frozen, log *slog.Logger) (*conn, error) {
	c := newConn(nc, f.client, log)
	c.peer, c.settled, c.lastID = f.peer, f.settled, f.lastID
	c.goAway, c.goAwayN, c.deferred = f.goAway, f.goAwayN, f.deferred
	var err error
	if c.send, err = h2.ResumeSendWindow(f.send); err != nil {
		return nil, err
	}
	if c.recv, err = h2.ResumeRecvWindow(connWindow, f.recv); err != nil {
		return nil, err
	}
	if err := c.rd.Resume(f.reader); err != nil {
		return nil, err
	}
	if err := c.dec.ResumeTable(f.table, f.tableLimit); err != nil {
		return nil, err
	}
	for _, from := range f.streams {
		if from.id == 0 || from.id > f.lastID || from.id%2 == 0 || c.streams[from.id] != nil {
			return nil, fmt.Errorf("stream %d does not belong there", from.id)
		}
		s := newStream(c, from.id)
		if s.send, err = h2.ResumeSendWindow(from.send); err != nil {
			return nil, err
		}
		if s.recv, err = h2.ResumeRecvWindow(streamWindow, from.recv); err != nil {
			return nil, err
		}
		s.localEnded, s.remoteEnded, s.answered, s.eof = from.localEnded, from.remoteEnded, from.answered, from.eof
		if s.localEnded {
			s.sendErr = errEnded
		}
		s.queue.Add(from.queue)
		c.buffered += int64(len(from.queue))
		c.streams[s.id] = s
	}
	if f.reader.InData && !f.reader.First {
		c.current = c.streams[f.reader.Data.StreamID]
	}
	c.reserve(len(f.out) + 1)
	c.out = append(c.out, f.out...)
	return c, nil
}

// Idle reports whether the connection carries no stream.
func (l Live) Idle() bool {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return len(l.c.streams) == 0
}

// Socket is the connection under TLS.
func (l Live) Socket() net.Conn {
	if tls, ok := innermost(l.c.nc).(Secured); ok {
		return tls.NetConn()
	}
	return nil
}
