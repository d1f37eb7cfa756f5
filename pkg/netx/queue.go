package netx

// Queue holds received bytes in buffers of [Pool], first in, first out. Small pieces share a buffer, so that a peer can't make us spend
// more memory than its window allows. The zero value is empty; a Queue that is in use must not be copied.
type Queue struct {
	chunks []chunk
	size   int
	one    [1]chunk // memory of chunks while that is enough
}

// chunk is a buffer of which w bytes are filled and r of these have been read.
type chunk struct {
	buf  []byte
	r, w int
}

// Len is how many bytes wait.
func (q *Queue) Len() int { return q.size }

// Add appends a copy of p.
func (q *Queue) Add(p []byte) {
	q.size += len(p)
	if k := len(q.chunks); k > 0 {
		last := &q.chunks[k-1]
		n := copy(last.buf[last.w:], p)
		last.w += n
		p = p[n:]
	}
	for len(p) > 0 {
		want := len(p)
		if len(q.chunks) > 0 {
			want = MediumBuffer // it is piling up
		}
		buf := Pool.Get(min(want, MediumBuffer))
		n := copy(buf, p)
		if q.chunks == nil {
			q.chunks = q.one[:0]
		}
		q.chunks = append(q.chunks, chunk{buf: buf, w: n})
		p = p[n:]
	}
}

// Read moves bytes into p and returns how many.
func (q *Queue) Read(p []byte) int {
	return q.Drain(func(b []byte) int {
		n := copy(p, b)
		p = p[n:]
		return n
	})
}

// Drain offers the bytes to push, in order, until it does not take all, and returns how many it took.
func (q *Queue) Drain(push func([]byte) int) int {
	done := 0
	for len(q.chunks) > 0 {
		first := &q.chunks[0]
		n := push(first.buf[first.r:first.w])
		first.r += n
		done += n
		if first.r < first.w {
			break
		}
		Pool.Put(first.buf)
		q.shift()
	}
	q.size -= done
	return done
}

// Pop takes the bytes of the first buffer out; nil means that there are none. Whoever has used them returns the buffer with [Pool].Put.
func (q *Queue) Pop() (data, buffer []byte) {
	if len(q.chunks) == 0 {
		return nil, nil
	}
	first := q.chunks[0]
	q.shift()
	data = first.buf[first.r:first.w]
	q.size -= len(data)
	return data, first.buf
}

// Unpop puts the end of what Pop has returned back where it was.
func (q *Queue) Unpop(data, buffer []byte) {
	if len(data) == 0 {
		Pool.Put(buffer)
		return
	}
	r := cap(buffer) - cap(data)
	q.chunks = append([]chunk{{buf: buffer, r: r, w: r + len(data)}}, q.chunks...)
	q.size += len(data)
}

// Bytes returns a copy of all that waits.
func (q *Queue) Bytes() []byte {
	all := make([]byte, 0, q.size)
	for _, c := range q.chunks {
		all = append(all, c.buf[c.r:c.w]...)
	}
	return all
}

// Clear drops everything and returns how many bytes that were.
func (q *Queue) Clear() int {
	n := q.size
	for _, c := range q.chunks {
		Pool.Put(c.buf)
	}
	*q = Queue{}
	return n
}

func (q *Queue) shift() {
	q.chunks[0] = chunk{}
	if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
		q.chunks = nil
	}
}
