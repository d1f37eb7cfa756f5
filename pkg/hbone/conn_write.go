package hbone

import (
	"errors"
	"os"
	"runtime"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// combineLimit bounds what data writers add to out; above it they wait for the writer.
const combineLimit = netx.LargeBuffer - 8<<10

// gatherLimit is how much is queued before others are waited for no more: as one system call and one record carry much then, another
// message in them saves little.
const gatherLimit = recordSize

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

// flush writes out until it is empty, unless somebody else does. Called with mu held, which it drops while
// it writes; returns with mu held.
func (c *conn) flush() {
	if c.writing || c.stopped {
		return
	}
	c.writing = true
	c.drain()
}

// drain is flush for the one who set writing.
func (c *conn) drain() {
	for rounds := 0; len(c.out) > 0 && !c.stopped; rounds++ {
		if rounds == 8 {
			// Others keep queueing: this caller has its own stream to serve.
			go func() {
				c.mu.Lock()
				c.drain()
				c.mu.Unlock()
			}()
			return
		}
		if c.gather(); c.stopped {
			break
		}
		buf := c.out
		c.out = nil
		c.mu.Unlock()
		n, err := c.write(buf)
		c.wrote(buf[n:], err)
		netx.Pool.Put(buf)
		c.mu.Lock()
		c.writes++
		c.turn.Signal()
		if c.err != nil {
			c.dropOut()
		}
	}
	c.writing = false
	c.turn.Broadcast()
	c.still.Broadcast()
}

// gather lets those run that are about to queue something: applications of many streams speak at about the same time, and one record
// and one system call serve all of them. A stream that is alone waits for nobody. Called with mu held, which it drops, by the one who
// set writing.
func (c *conn) gather() {
	if len(c.streams) < 2 || len(c.out) >= gatherLimit {
		return
	}
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
}

// wrote deals with the outcome of a write. A deadline only says that writing is to stop: what is left comes first when it goes on.
// Called without mu.
func (c *conn) wrote(left []byte, err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.dying != nil || c.err != nil {
		c.mu.Unlock()
		c.fail(err)
		return
	}
	if len(left) > 0 {
		queued := c.out
		c.out = nil
		c.reserve(len(left) + len(queued))
		c.out = append(append(c.out, left...), queued...)
		if queued != nil {
			netx.Pool.Put(queued)
		}
	}
	c.mu.Unlock()
}

func (c *conn) dropOut() {
	if c.out != nil {
		netx.Pool.Put(c.out)
		c.out = nil
	}
}

// flushAsync is flush for the reader and for timers, which must not block. Called with mu held.
func (c *conn) flushAsync() {
	if c.writing || c.stopped || len(c.out) == 0 {
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

// windowUpdate announces incr more bytes; id 0 is the connection.
func (c *conn) windowUpdateLocked(id, incr uint32) {
	if incr == 0 || c.err != nil {
		return
	}
	c.reserve(64)
	c.out = h2.AppendWindowUpdate(c.out, id, incr)
	c.flushAsync()
}
