package tlsrec

import (
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// tap is the connection that crypto/tls shakes hands over. It hands out no more than the rest of one record at a time, so that
// whatever follows the handshake is still here when that is over. Only the one who shakes hands reads.
type tap struct {
	net.Conn
	buf  []byte // pooled, from the first read on
	r, w int
	head [headLen]byte
	have int  // bytes of head that went by
	left int  // bytes that the record still has
	open bool // records do not matter any more
}

// Read implements net.Conn.
func (t *tap) Read(p []byte) (int, error) {
	if t.open && t.r == t.w {
		t.release()
		return t.Conn.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if t.r == t.w {
		if t.buf == nil {
			t.buf = netx.Pool.Get(netx.SmallBuffer) // a peer that is slow to shake hands holds no more
		}
		t.r, t.w = 0, 0
		n, err := t.Conn.Read(t.buf)
		if n == 0 {
			return 0, err
		}
		t.w = n // an error comes again
	}
	from := t.buf[t.r:t.w]
	if !t.open {
		from = t.bound(from)
	}
	n := copy(p, from)
	t.r += n
	if !t.open {
		t.passed(from[:n])
	}
	return n, nil
}

// bound cuts p at the end of the head or record that is going by.
func (t *tap) bound(p []byte) []byte {
	if t.left > 0 {
		return p[:min(t.left, len(p))]
	}
	return p[:min(headLen-t.have, len(p))]
}

// passed books what was handed out, which lies within one head or one record.
func (t *tap) passed(p []byte) {
	if t.left > 0 {
		t.left -= len(p)
		return
	}
	t.have += copy(t.head[t.have:], p)
	if t.have == headLen {
		t.have, t.left = 0, recordLen(t.head[:])
	}
}

// rest takes out what was read and not handed out, with the buffer that holds it.
func (t *tap) rest() (buf []byte, r, w int) {
	if t.r == t.w {
		t.release()
	}
	buf, r, w = t.buf, t.r, t.w
	t.buf, t.r, t.w = nil, 0, 0
	return buf, r, w
}

func (t *tap) release() {
	if t.buf != nil {
		netx.Pool.Put(t.buf)
	}
	t.buf, t.r, t.w = nil, 0, 0
}
