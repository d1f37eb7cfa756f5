package hbone

import (
	"encoding/binary"
	"fmt"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
)

// dispatch handles one frame on the reader.
func (c *conn) dispatch(f h2.Frame) error {
	if f.Type != h2.FrameData {
		c.pass() // in the order in which it came
	}
	switch f.Type {
	case h2.FrameData:
		return c.onData(f)
	case h2.FrameHeaders:
		fields, err := c.dec.Decode(f.StreamID, f.Payload)
		if _, fatal := err.(h2.ConnError); fatal { //nolint:errorlint // Decode does not wrap
			return err
		}
		return c.role.headers(f, fields, err)
	case h2.FrameSettings:
		return c.onSettings(f)
	case h2.FramePing:
		return c.onPing(f)
	case h2.FrameWindowUpdate:
		return c.onWindowUpdate(f)
	case h2.FrameRSTStream:
		return c.onReset(f)
	case h2.FrameGoAway:
		return c.onGoAway(f)
	case h2.FramePriority:
		if !c.control.Spend() {
			return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "PRIORITY flood"}
		}
	}
	return nil
}

// idle reports whether a stream id was never used. Called with mu held.
func (c *conn) idle(id uint32) bool { return id > c.lastID || id%2 == 0 }

func (c *conn) onData(f h2.Frame) error {
	if f.First {
		s, err := c.admitData(f)
		if err != nil {
			return err
		}
		c.current = s
		if f.Length == 0 && !f.EndStream() && !c.control.Spend() {
			return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "empty DATA flood"}
		}
	}
	s := c.current
	if s == nil {
		return nil
	}
	c.hold(s, f.Payload)
	if f.EndStream() {
		c.held.end = true
		c.pass()
		c.remoteEnd(s)
	}
	if f.Last {
		c.current = nil
	}
	return nil
}

// admitData does the flow control of a DATA frame and finds its stream; nil means that the data is dropped.
func (c *conn) admitData(f h2.Frame) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(f.Length)
	if !c.recv.Receive(n) {
		return nil, h2.ConnError{Code: h2.FlowControlError, Reason: "connection window exceeded"}
	}
	c.received += uint64(n)
	if c.buffered+n <= maxBuffered && c.pressure() == Relaxed {
		c.windowUpdateLocked(0, c.recv.Consume(n))
	} else {
		c.deferred += n
	}
	s := c.streams[f.StreamID]
	if s == nil {
		if c.idle(f.StreamID) {
			return nil, h2.ConnError{Code: h2.ProtocolError, Reason: "DATA on an idle stream"}
		}
		c.giveBackLocked(n)
		if !c.resets.Spend() { // data in flight when we reset is normal, a stream of it is not
			return nil, h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "DATA on closed streams"}
		}
		return nil, nil
	}
	if s.remoteEnded {
		return nil, h2.StreamError{StreamID: f.StreamID, Code: h2.StreamClosed, Reason: "DATA after END_STREAM"}
	}
	if c.client && !s.answered {
		return nil, h2.StreamError{StreamID: f.StreamID, Code: h2.ProtocolError, Reason: "DATA before HEADERS"}
	}
	if !s.recv.Receive(n) {
		return nil, h2.StreamError{StreamID: f.StreamID, Code: h2.FlowControlError, Reason: "stream window exceeded"}
	}
	if f.Padding > 0 {
		c.giveBackLocked(int64(f.Padding))
		c.windowUpdateLocked(s.id, s.recv.Consume(int64(f.Padding)))
	}
	return s, nil
}

// giveBackLocked returns n consumed bytes to the connection's window if that was put off on arrival.
func (c *conn) giveBackLocked(n int64) {
	if c.deferred > 0 {
		k := min(n, c.deferred)
		c.deferred -= k
		c.windowUpdateLocked(0, c.recv.Consume(k))
	}
}

func (c *conn) onSettings(f h2.Frame) error {
	if !c.control.Spend() {
		return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "SETTINGS flood"}
	}
	if f.Flags.Has(h2.FlagAck) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := int64(c.peer.InitialWindowSize)
	err := c.peer.Apply(f.Payload, c.client)
	if err == nil {
		c.settled = true
		delta := int64(c.peer.InitialWindowSize) - before
		for _, s := range c.streams {
			if !s.send.Add(delta) {
				err = h2.ConnError{Code: h2.FlowControlError, Reason: "SETTINGS overflow a window"}
				break
			}
			s.sendable.Signal()
		}
	}
	if err != nil {
		return err
	}
	// Before anybody who was woken sends by the new windows.
	return c.queueControlLocked(h2.AppendSettingsAck)
}

func (c *conn) onPing(f h2.Frame) error {
	if f.Flags.Has(h2.FlagAck) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ping.acked(c, f.Payload)
		return nil
	}
	if !c.control.Spend() {
		return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "PING flood"}
	}
	data := [8]byte(f.Payload)
	return c.queueControl(func(b []byte) []byte { return h2.AppendPing(b, true, data) })
}

func (c *conn) onWindowUpdate(f h2.Frame) error {
	incr := int64(binary.BigEndian.Uint32(f.Payload) & h2.MaxWindow)
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if incr == 0 {
			return h2.ConnError{Code: h2.ProtocolError, Reason: "WINDOW_UPDATE of 0"}
		}
		if !c.send.Add(incr) {
			return h2.ConnError{Code: h2.FlowControlError, Reason: "connection window overflow"}
		}
		c.unblock()
		return nil
	}
	s := c.streams[f.StreamID]
	if s == nil {
		if c.idle(f.StreamID) {
			return h2.ConnError{Code: h2.ProtocolError, Reason: "WINDOW_UPDATE on an idle stream"}
		}
		return nil
	}
	if incr == 0 {
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ProtocolError, Reason: "WINDOW_UPDATE of 0"}
	}
	if !s.send.Add(incr) {
		return h2.StreamError{StreamID: f.StreamID, Code: h2.FlowControlError, Reason: "stream window overflow"}
	}
	s.sendable.Signal()
	return nil
}

func (c *conn) onReset(f h2.Frame) error {
	code := h2.ErrCode(binary.BigEndian.Uint32(f.Payload))
	c.mu.Lock()
	s := c.streams[f.StreamID]
	// A server resets a stream of its client once, and may have every reason to: each refusal ends with a reset.
	if (s == nil || !c.client) && !c.resets.Spend() {
		c.mu.Unlock()
		return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "RST_STREAM flood"}
	}
	if s == nil {
		idle := c.idle(f.StreamID)
		c.mu.Unlock()
		if idle {
			return h2.ConnError{Code: h2.ProtocolError, Reason: "RST_STREAM on an idle stream"}
		}
		return nil
	}
	err := fmt.Errorf("%w (%s)", ErrReset, code)
	if code == h2.RefusedStream {
		err = fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	complete := s.remoteEnded
	s.abortLocked(err)
	c.removeLocked(s)
	c.mu.Unlock()
	if !complete { // else what was sent is whole and may still be read
		s.endReceive(err)
	}
	return nil
}

func (c *conn) onGoAway(f h2.Frame) error {
	if !c.control.Spend() {
		return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "GOAWAY flood"}
	}
	last := binary.BigEndian.Uint32(f.Payload) & (1<<31 - 1)
	code := h2.ErrCode(binary.BigEndian.Uint32(f.Payload[4:]))
	if code != h2.NoError {
		c.log.Debug("peer ends HBONE connection", "peer", c.nc.RemoteAddr(), "code", code, "debug", string(f.Payload[8:]))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.role.goneAway(last)
	return nil
}

// streamError resets a stream of which the reader found that the peer broke the rules.
func (c *conn) streamError(e h2.StreamError) error {
	if !c.resets.Spend() {
		return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "too many stream errors"}
	}
	c.log.Debug("resetting HBONE stream", "peer", c.nc.RemoteAddr(), "err", e)
	c.mu.Lock()
	s := c.streams[e.StreamID]
	if s != nil {
		s.abortLocked(e)
		c.removeLocked(s)
	}
	c.mu.Unlock()
	if s != nil {
		s.endReceive(e)
	}
	return c.queueControl(func(b []byte) []byte { return h2.AppendRSTStream(b, e.StreamID, e.Code) })
}

// remoteEnd notes that the peer sends no more on s.
func (c *conn) remoteEnd(s *Stream) {
	c.mu.Lock()
	s.remoteEnded = true
	c.retireLocked(s)
	c.mu.Unlock()
}

// retireLocked forgets a stream that ended on both sides.
func (c *conn) retireLocked(s *Stream) {
	if s.remoteEnded && s.localEnded {
		c.removeLocked(s)
	}
}

func (c *conn) removeLocked(s *Stream) {
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
		c.blocked.remove(s)
		c.role.closed()
	}
}
