package hbone

// maxHeld is how many pieces of data are held: a buffer full of records of the largest size.
const maxHeld = 16

// held is the data that the reader has for one stream and has not passed on yet: as long as the memory in which it came is not
// needed again, what follows may go with it, in one system call. Owned by readLoop.
type held struct {
	stream *Stream
	n      int
	pieces [maxHeld][]byte
	end    bool
}

// hold adds p to what is held, if that is for the same stream.
func (c *conn) hold(s *Stream, p []byte) {
	h := &c.held
	if h.stream != s || h.n == maxHeld {
		c.pass()
		h.stream = s
	}
	if len(p) > 0 {
		h.pieces[h.n] = p
		h.n++
	}
}

// pass delivers what is held.
func (c *conn) pass() {
	h := &c.held
	if h.stream == nil {
		return
	}
	s, n, end := h.stream, h.n, h.end
	h.stream, h.n, h.end = nil, 0, false
	if n > 0 || end {
		s.deliver(h.pieces[:n], end)
	}
	clear(h.pieces[:n])
}

// size is how many bytes the pieces have.
func size(pieces [][]byte) (n int) {
	for _, p := range pieces {
		n += len(p)
	}
	return n
}

// advance drops the first n bytes.
func advance(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}
