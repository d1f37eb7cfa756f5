package h2conn

import "github.com/isthmus-mesh/isthmus/pkg/httpmsg"

// A stream serves one request after the other. Its owner (the handler that has returned, or who called Close) parts with it once; it is
// used again when the connection's reader can't know it any more, which is when the reader is between frames and has nobody to wake.
// Cancel, Reset and what else others may call do not part with it.

const (
	// maxSpare is how many streams a connection keeps, of either kind; others are left to the garbage collector.
	maxSpare = 64
	// maxSpareFields is up to how many fields of a head the memory is kept.
	maxSpareFields = 64
)

// recycled is a stream of either role.
type recycled interface {
	comparable
	// forget makes the stream as it was before its first use.
	forget()
}

// spares are the streams of a connection that can be used again. Guarded by conn.mu.
type spares[S recycled] struct {
	parted []S // by their owners; the reader may still be using them
	free   []S // nobody knows them
}

// part takes a stream from its owner.
func (p *spares[S]) part(c *conn, s S) {
	if len(p.parted) < maxSpare {
		p.parted = append(p.parted, s)
		c.parted.Store(true)
	}
}

// settle is called by the reader between frames.
func (p *spares[S]) settle() {
	for _, s := range p.parted {
		if len(p.free) < maxSpare {
			s.forget()
			p.free = append(p.free, s)
		}
	}
	clear(p.parted)
	p.parted = p.parted[:0]
}

// take returns a stream, the zero value if there is none.
func (p *spares[S]) take() (s S) {
	if n := len(p.free); n > 0 {
		var none S
		s, p.free[n-1] = p.free[n-1], none
		p.free = p.free[:n-1]
	}
	return s
}

// settle lets the streams be used again that their owners have parted with, unless the reader may still know them. It runs on the reader.
func (c *conn) settle() {
	if c.current != nil || len(c.wakes) > 0 || !c.parted.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parted.Store(false)
	c.role.settle()
}

// emptied is a head's memory, for the next head.
func emptied(h httpmsg.Header) httpmsg.Header {
	if h.Len() > maxSpareFields {
		return httpmsg.Header{}
	}
	h.Reset()
	return h
}
