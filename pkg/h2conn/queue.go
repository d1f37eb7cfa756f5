package h2conn

import "github.com/isthmus-mesh/isthmus/pkg/netx"

// queue holds received bytes in pooled buffers, first in, first out. Small pieces share a buffer, so that a peer can't make us spend
// more memory than its window allows.
type queue struct {
	chunks []chunk
	size   int
	one    [1]chunk // memory of chunks while that is enough
}

type chunk struct {
	buf  []byte
	r, w int
}

func (q *queue) add(p []byte) {
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
			want = netx.MediumBuffer // it is piling up
		}
		buf := netx.Pool.Get(min(want, netx.MediumBuffer))
		n := copy(buf, p)
		if q.chunks == nil {
			q.chunks = q.one[:0]
		}
		q.chunks = append(q.chunks, chunk{buf: buf, w: n})
		p = p[n:]
	}
}

// read moves bytes into p.
func (q *queue) read(p []byte) int {
	done := 0
	for len(q.chunks) > 0 && done < len(p) {
		first := &q.chunks[0]
		n := copy(p[done:], first.buf[first.r:first.w])
		first.r += n
		done += n
		if first.r == first.w {
			netx.Pool.Put(first.buf)
			q.shift()
		}
	}
	q.size -= done
	return done
}

func (q *queue) shift() {
	q.chunks[0] = chunk{}
	if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
		q.chunks = nil
	}
}

// clear drops everything and returns how many bytes that were.
func (q *queue) clear() int {
	n := q.size
	for _, c := range q.chunks {
		netx.Pool.Put(c.buf)
	}
	*q = queue{}
	return n
}
