package h2conn

import (
	"bytes"
	"runtime"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

const (
	// combineLimit bounds what data writers add to out; above it they wait for the writer.
	combineLimit = netx.LargeBuffer - 8<<10
	// holdLimit is how much of what may be held back is.
	holdLimit = 16 << 10
)

// reserve makes room for n more bytes in out. Called with mu held.
func (c *conn) reserve(n int) {
	if cap(c.out)-len(c.out) >= n {
		return
	}
	bigger := netx.Pool.Get(len(c.out) + n)
	k := copy(bigger, c.out)
	if c.out != nil {
		netx.Pool.Put(c.out)
	}
	c.out = bigger[:k]
}

// flush writes out until it is empty, unless somebody else does. Called with mu held, which it drops while it writes; returns with
// mu held.
func (c *conn) flush() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.writing = true
	c.drain()
}

// flushSoon is flush for the end of a message: on a connection with other streams it first lets those run that are about to write,
// so that one system call serves all. Where that paid, it does so for the only stream, too: it may be the first of many that come
// together. A peer that got it alone would answer it alone, and so on for ever.
func (c *conn) flushSoon() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.writing = true
	if before := len(c.out); (c.crowded || len(c.streams) > 1) && before < holdLimit {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		c.crowded = len(c.out) > before
	}
	c.drain()
}

// drain is flush for the one who set writing.
func (c *conn) drain() {
	for rounds := 0; len(c.out) > 0; rounds++ {
		if rounds == 8 {
			// Others keep queueing: this caller has its own stream to serve.
			go func() {
				c.mu.Lock()
				c.drain()
				c.mu.Unlock()
			}()
			return
		}
		buf := c.out
		c.out, c.tail = nil, tailFrame{}
		c.beginWrite()
		c.mu.Unlock()
		_, err := c.nc.Write(buf)
		netx.Pool.Put(buf)
		if err != nil {
			c.fail(err)
		}
		c.mu.Lock()
		c.turn.Signal()
		if c.err != nil {
			c.dropOut()
		}
	}
	c.writing = false
	c.turn.Broadcast()
}

func (c *conn) dropOut() {
	if c.out != nil {
		netx.Pool.Put(c.out)
		c.out, c.tail = nil, tailFrame{}
	}
}

// flushAsync is flush for the reader and for timers, which must not block. Called with mu held.
func (c *conn) flushAsync() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.writing = true
	go func() {
		c.mu.Lock()
		c.drain()
		c.mu.Unlock()
	}()
}

// queueControl queues a small frame from the reader. A peer that makes us queue without reading is cut off.
func (c *conn) queueControl(appendTo func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queueControlLocked(appendTo)
}

func (c *conn) queueControlLocked(appendTo func([]byte) []byte) error {
	if c.err != nil {
		return nil
	}
	if len(c.out) > maxPending {
		return h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "peer does not read what it asks for"}
	}
	c.reserve(64)
	c.out = appendTo(c.out)
	c.flushAsync()
	return nil
}

// windowUpdateLocked announces incr more bytes; id 0 is the connection.
func (c *conn) windowUpdateLocked(id, incr uint32) {
	if incr == 0 || c.err != nil {
		return
	}
	c.reserve(64)
	c.out = h2.AppendWindowUpdate(c.out, id, incr)
	c.flushAsync()
}

// openBlock makes room for a header block of about n bytes at the end of out, which the caller appends before it calls closeBlock
// with the result. Called with mu held.
func (c *conn) openBlock(n int) (start int) {
	c.reserve(n + 64)
	start = len(c.out)
	c.out = c.out[:start+h2.FrameHeaderLen]
	return start
}

// closeBlock makes frames of the header block.
func (c *conn) closeBlock(start int, id uint32, end bool) {
	n := len(c.out) - start - h2.FrameHeaderLen
	if n > int(c.peer.MaxFrameSize) {
		block := bytes.Clone(c.out[start+h2.FrameHeaderLen:])
		c.out = c.out[:start]
		c.reserve(n + 1024)
		c.out = h2.AppendHeaders(c.out, id, end, block, int(c.peer.MaxFrameSize))
		return
	}
	h := h2.FrameHeader{Length: uint32(n), Type: h2.FrameHeaders, Flags: h2.FlagEndHeaders, StreamID: id}
	if end {
		h.Flags |= h2.FlagEndStream
	}
	h.Put(c.out[start:])
}

// tailFrame is the DATA frame at the end of out, which may still become the last of its stream.
type tailFrame struct {
	id    uint32
	start int // of the frame in out
	end   int
}

func (c *conn) dataLocked(id uint32, p []byte) {
	c.reserve(h2.FrameHeaderLen + len(p))
	start := len(c.out)
	c.out = h2.FrameHeader{Length: uint32(len(p)), Type: h2.FrameData, StreamID: id}.Append(c.out)
	c.out = append(c.out, p...)
	c.tail = tailFrame{id: id, start: start, end: len(c.out)}
}

// endStreamLocked queues END_STREAM: in the stream's last frame, if that is the last of all.
func (c *conn) endStreamLocked(id uint32) {
	if c.tail.id == id && c.tail.end == len(c.out) {
		c.out[c.tail.start+4] |= byte(h2.FlagEndStream)
		c.tail = tailFrame{}
		return
	}
	c.reserve(64)
	c.out = h2.FrameHeader{Type: h2.FrameData, Flags: h2.FlagEndStream, StreamID: id}.Append(c.out)
}
