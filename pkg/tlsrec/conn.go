package tlsrec

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Conn is a TLS 1.3 connection whose records are ours. One goroutine may read while others write; writes are serialised.
type Conn struct {
	// immutable
	nc     net.Conn
	raw    syscall.RawConn // nil unless nc is a TCP socket
	client bool
	state  tls.ConnectionState

	rx receiver
	tx sender

	closed atomic.Bool // the keys are to be erased by whoever leaves last
	// updateOwed: the peer asked for a KeyUpdate, which precedes the next data.
	updateOwed atomic.Bool
	// alertOwed is the fatal alert that reading ended with, until it is sent; 0 is none.
	alertOwed atomic.Uint32
}

func newConn(nc net.Conn, client bool, state tls.ConnectionState, in, out *keys) *Conn {
	c := &Conn{nc: nc, client: client, state: state}
	c.rx.keys, c.tx.keys = in, out
	if tcp, ok := nc.(*net.TCPConn); ok {
		c.raw, _ = tcp.SyscallConn() // without it there is still nc
	}
	c.rx.try, c.tx.try = c.rx.read, c.tx.write
	return c
}

// TakeTurns makes reading, sealing and sending of more than a few kilobytes wait for a turn. One who reads a lot keeps it until the next
// read, or until Rest, which is also the last thing that it calls: what is done with the data in between is to wait for nothing. TakeTurns
// is called before the first read and write.
func (c *Conn) TakeTurns(k *netx.Taker) { c.rx.turn.taker, c.tx.turn.taker = k, k }

// Rest gives the turn back that reading keeps. Only the one who reads may call it.
func (c *Conn) Rest() { c.rx.turn.give() }

// turn is what one half of a connection has of its turns.
type turn struct {
	taker *netx.Taker // nil never waits
	taken bool
}

func (t *turn) take() {
	if !t.taken {
		t.taker.Take()
		t.taken = true
	}
}

func (t *turn) give() {
	if t.taken {
		t.taker.Give()
		t.taken = false
	}
}

// direct is nc with cheaper system calls where it is a plain TCP socket; wrappers are left alone, as they may hold bytes.
func direct(nc net.Conn) net.Conn {
	if tcp, ok := nc.(*net.TCPConn); ok {
		if quick, err := netx.Direct(tcp); err == nil {
			return quick
		}
	}
	return nc
}

// ConnectionState returns what the handshake agreed on. It cannot export keying material.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.state }

// NetConn returns the connection that carries the records. Whoever writes to it breaks them.
func (c *Conn) NetConn() net.Conn { return c.nc }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// SetReadDeadline implements net.Conn. Reading can go on after it has passed.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. Writing can go on after it has passed; see Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// Close sends close_notify if that needs no waiting, closes the connection and erases the keys.
func (c *Conn) Close() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if c.tx.mu.TryLock() {
		open := c.tx.err == nil && len(c.tx.unsent) == 0
		switch {
		case c.tx.kernel && (open || errors.Is(c.tx.err, errCloseSent)) && c.full():
			c.linger(open)
		case open:
			c.farewell(AlertCloseNotify)
		}
		c.tx.mu.Unlock()
	}
	c.closed.Store(true)
	err := c.nc.Close()
	c.leaveRead()
	c.leaveWrite()
	return err
}

// leaveRead is called without rx.mu by everybody who has held it: the last one erases. The same with leaveWrite.
func (c *Conn) leaveRead() {
	if c.closed.Load() && c.rx.mu.TryLock() {
		c.rx.end(net.ErrClosed)
		c.rx.mu.Unlock()
	}
}

func (c *Conn) leaveWrite() {
	for {
		closed, alert := c.closed.Load(), Alert(c.alertOwed.Load())
		if !closed && alert == 0 || !c.tx.mu.TryLock() {
			return
		}
		if closed {
			c.tx.end(net.ErrClosed)
		} else if c.alertOwed.CompareAndSwap(uint32(alert), 0) && c.tx.err == nil {
			if len(c.tx.unsent) == 0 {
				c.farewell(alert)
			}
			c.tx.end(net.ErrClosed)
		}
		c.tx.mu.Unlock()
		if closed {
			return
		}
	}
}

// String hides what is inside.
func (c *Conn) String() string {
	return fmt.Sprintf("TLS connection %s-%s", c.LocalAddr(), c.RemoteAddr())
}

// Format implements fmt.Formatter for all verbs.
func (c *Conn) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// LogValue implements slog.LogValuer.
func (c *Conn) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps encoders out.
func (c *Conn) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
