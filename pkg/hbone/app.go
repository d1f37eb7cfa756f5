package hbone

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// appSide is the application's socket of a tunnel that is being opened. Whoever opens it waits on the socket, not for the peer's
// answer: the connection's reader acts on that, so that nobody is woken only to wait again.
type appSide struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	sink *sink // for when the peer accepts

	mu      sync.Mutex // guards the rest; nothing else is locked under it
	parked  bool
	woken   bool
	limited bool // the socket has a deadline
}

// appPatience is for how long an application is waited for here: a relay may sleep, a tunnel that is being opened may not.
const appPatience = netx.SleepAfter

func newAppSide(conn *net.TCPConn, count *netx.Counter) (*appSide, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	a := &appSide{conn: conn, raw: raw, sink: newSink(conn, raw, count), parked: true}
	a.sink.wake = a.wake
	return a, nil
}

// park returns when the application has sent something, or has ended, or wake was called, or after a while.
func (a *appSide) park(ctx context.Context) {
	a.limit()
	stop := context.AfterFunc(ctx, a.wake)
	looked := false
	_ = a.raw.Read(func(fd uintptr) bool { // whoever reads or writes next meets the error
		if looked {
			return true
		}
		looked = true
		return netx.Readable(fd)
	})
	stop()
	a.leave()
}

// limit bounds how long it parks.
func (a *appSide) limit() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.woken {
		a.limited = true
		a.conn.SetReadDeadline(time.Now().Add(appPatience))
	}
}

// leave ends parking: wake has no effect any more, and what it and limit did is undone.
func (a *appSide) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parked = false
	if a.woken || a.limited {
		a.conn.SetReadDeadline(time.Time{})
	}
}

// wake makes park return. It never blocks.
func (a *appSide) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parked && !a.woken {
		a.woken = true
		a.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// attach makes the stream forward to the application, unless its owner has done that already.
func (s *Stream) attach(k *sink) {
	s.rmu.Lock()
	passed := 0
	if s.sink == nil {
		s.sink = k
		passed = s.forwardQueueLocked()
	}
	s.rmu.Unlock()
	if passed > 0 {
		s.account(0, 0, passed)
	}
}
