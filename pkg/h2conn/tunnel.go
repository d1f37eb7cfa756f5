package h2conn

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
)

func eof() error { return io.EOF }

// tunnel is a stream that ceased to be a message: each Write is sent at once.
type tunnel struct {
	s          *stream
	readTimer  *time.Timer // guarded by s.rmu
	writeTimer *time.Timer // guarded by s.c.mu
}

// Read implements net.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.s.Read(p)
	if n > 0 {
		err = nil // the end comes by itself, as from a socket
	}
	return n, err
}

// Write implements net.Conn.
func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.s.Write(p)
	if err == nil {
		err = t.s.Flush()
	}
	return n, err
}

// CloseWrite implements [httpmsg.Stream].
func (t *tunnel) CloseWrite() error { return t.s.closeWrite() }

// Close ends the tunnel: what was written arrives, followed by the end; what the peer still sends is refused.
func (t *tunnel) Close() error {
	s := t.s
	s.c.mu.Lock()
	if !s.localEnded {
		_ = s.finishLocked(nil) // fails only if the stream has ended
	}
	s.c.mu.Unlock()
	s.closeWith(h2.Cancel)
	_ = t.SetDeadline(time.Time{})
	return nil
}

// Reset aborts both directions, as a TCP reset would.
func (t *tunnel) Reset() { t.s.cancelWith(h2.ConnectError) }

// LocalAddr implements net.Conn: that of the connection.
func (t *tunnel) LocalAddr() net.Addr { return t.s.c.nc.LocalAddr() }

// RemoteAddr implements net.Conn: that of the connection.
func (t *tunnel) RemoteAddr() net.Addr { return t.s.c.nc.RemoteAddr() }

// SetDeadline implements net.Conn.
func (t *tunnel) SetDeadline(at time.Time) error {
	_ = t.SetReadDeadline(at)
	return t.SetWriteDeadline(at)
}

// SetReadDeadline implements net.Conn.
func (t *tunnel) SetReadDeadline(at time.Time) error {
	t.s.rmu.Lock()
	defer t.s.rmu.Unlock()
	setDeadline(at, &t.s.rmu, &t.readTimer, &t.s.readExpired, t.s.readable.Broadcast)
	return nil
}

// SetWriteDeadline implements net.Conn. It bounds the wait for the peer's window and for other streams, not a single write to the
// connection.
func (t *tunnel) SetWriteDeadline(at time.Time) error {
	t.s.c.mu.Lock()
	defer t.s.c.mu.Unlock()
	setDeadline(at, &t.s.c.mu, &t.writeTimer, &t.s.writeExpired, func() {
		t.s.sendable.Broadcast()
		t.s.c.turn.Broadcast()
	})
	return nil
}

// setDeadline arms one of the deadlines; called with mu, which guards timer and expired, held.
func setDeadline(at time.Time, mu *sync.Mutex, timer **time.Timer, expired *bool, wake func()) {
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	*expired = false
	if at.IsZero() {
		return
	}
	wait := time.Until(at)
	if wait <= 0 {
		*expired = true
		wake()
		return
	}
	var mine *time.Timer
	mine = time.AfterFunc(wait, func() {
		mu.Lock()
		defer mu.Unlock()
		if *timer == mine { // not replaced meanwhile
			*expired = true
			wake()
		}
	})
	*timer = mine
}
