package hbone

import "github.com/isthmus-mesh/isthmus/pkg/netx"

// Pressure says how much memory is left for data whose receiver lags.
type Pressure uint8

// The degrees of pressure.
const (
	// Relaxed: a connection's window is given back as data arrives, so that a slow stream hinders no other.
	Relaxed Pressure = iota
	// Slow: it is given back as data is consumed, so that peers stop sending.
	Slow
	// Cut: a stream that would have to hold more is reset.
	Cut
)

// Budget is what all connections of a workload have: memory for data that waits for its receiver, and turns at the processors. Its methods
// must not block: they are called under a connection's lock.
type Budget interface {
	// Hold books n more bytes, or fewer when it is negative.
	Hold(n int64)
	// Pressure is asked before more is held.
	Pressure() Pressure
	// Turns are what heavy work waits for; nil is nothing.
	Turns() *netx.Taker
}

// Charge makes the connection charge its buffers to b. It is called before Start; Serve does so by itself.
func (r *Resumed) Charge(b Budget) { r.c.charge(b) }

// charge is called before anything is read or written.
func (c *conn) charge(b Budget) {
	c.budget = b
	if b == nil {
		return
	}
	if c.buffered > 0 {
		b.Hold(c.buffered)
	}
	c.turns = b.Turns()
	if records, ok := innermost(c.nc).(turnTaker); ok {
		records.TakeTurns(c.turns)
		c.rest = records.Rest
	}
}

// turnTaker is a connection whose heavy work waits for turns (package tlsrec).
type turnTaker interface {
	TakeTurns(k *netx.Taker)
	Rest()
}

// pressure of the connection's budget.
func (c *conn) pressure() Pressure {
	if c.budget == nil {
		return Relaxed
	}
	return c.budget.Pressure()
}

// waitSendable waits for room in the windows, with n bytes in hand, which are charged meanwhile. Called with conn.mu held.
func (s *Stream) waitSendable(n int) error {
	b := s.c.budget
	if b == nil || n == 0 {
		s.sendable.Wait(&s.c.mu)
		return nil
	}
	if b.Pressure() == Cut {
		return ErrOverBudget
	}
	b.Hold(int64(n))
	s.sendable.Wait(&s.c.mu)
	b.Hold(-int64(n))
	return nil
}
