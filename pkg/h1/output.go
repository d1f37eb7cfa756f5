package h1

import (
	"net"
	"strconv"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// output writes messages, gathered into few system calls. It belongs to one goroutine at a time.
type output struct {
	nc   net.Conn
	tcp  *net.TCPConn // nc, if it is one: it can gather
	buf  []byte       // not yet written; nil while nothing is borrowed
	err  error        // of nc, for good
	kind bodyKind     // of the message under way
	left int64        // what its length still promises
	mute bool         // the body goes nowhere: HEAD
	done bool         // the message is complete
	vec  net.Buffers
	vecs [2][]byte
}

const (
	// gather is from where a piece is handed to the kernel where it is, next to what is buffered.
	gather = 4 << 10
	// full is what the buffer grows to before it is written.
	full = netx.MediumBuffer
)

func newOutput(nc net.Conn) output {
	tcp, _ := nc.(*net.TCPConn)
	return output{nc: nc, tcp: tcp}
}

// begin starts the body of a message whose head was just put into the buffer.
func (o *output) begin(kind bodyKind, length int64, mute bool) {
	o.kind, o.left, o.mute, o.done = kind, length, mute, false
}

// reserve makes room for n bytes, which must be less than full.
func (o *output) reserve(n int) {
	if cap(o.buf)-len(o.buf) >= n {
		return
	}
	if len(o.buf)+n > full && len(o.buf) > 0 {
		_ = o.flush() // the error stays with o
	}
	if cap(o.buf)-len(o.buf) >= n {
		return
	}
	bigger := netx.Pool.Get(len(o.buf) + n)
	k := copy(bigger, o.buf)
	if o.buf != nil {
		netx.Pool.Put(o.buf)
	}
	o.buf = bigger[:k]
}

// flush writes what is buffered and gives the buffer back.
func (o *output) flush() error {
	if len(o.buf) > 0 && o.err == nil {
		_, o.err = o.nc.Write(o.buf)
	}
	o.drop()
	return o.err
}

func (o *output) drop() {
	if o.buf != nil {
		netx.Pool.Put(o.buf)
		o.buf = nil
	}
}

// raw adds p.
func (o *output) raw(p []byte) error {
	if o.tcp != nil && len(p) >= gather {
		return o.writev(p)
	}
	for len(p) > 0 && o.err == nil {
		if len(o.buf) == 0 && len(p) >= full {
			_, o.err = o.nc.Write(p)
			return o.err
		}
		o.reserve(min(len(p), full-len(o.buf)))
		n := min(cap(o.buf)-len(o.buf), len(p))
		o.buf = append(o.buf, p[:n]...)
		if p = p[n:]; len(p) > 0 {
			_ = o.flush() // the error stays with o
		}
	}
	return o.err
}

func (o *output) writev(p []byte) error {
	if o.err != nil {
		return o.err
	}
	if len(o.buf) == 0 {
		_, o.err = o.tcp.Write(p)
		return o.err
	}
	o.vecs = [2][]byte{o.buf, p}
	o.vec = o.vecs[:]
	_, o.err = o.vec.WriteTo(o.tcp)
	o.vecs = [2][]byte{}
	o.drop()
	return o.err
}

// body adds p to the body.
func (o *output) body(p []byte) (int, error) {
	switch {
	case o.err != nil:
		return 0, o.err
	case o.done:
		return 0, errFinished
	case len(p) == 0 || o.mute:
		return len(p), nil
	}
	var err error
	switch o.kind {
	case bodyNone:
		return 0, errBody
	case bodyLength:
		if int64(len(p)) > o.left {
			return 0, errTooMuch
		}
		o.left -= int64(len(p))
		err = o.raw(p)
	case bodyChunked:
		o.reserve(20)
		o.buf = strconv.AppendUint(o.buf, uint64(len(p)), 16)
		o.buf = append(o.buf, "\r\n"...)
		if err = o.raw(p); err == nil {
			o.reserve(2)
			o.buf = append(o.buf, "\r\n"...)
		}
	case bodyClose:
		err = o.raw(p)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// finish ends the message and writes all that is buffered.
func (o *output) finish(trailer *httpmsg.Header) error {
	switch {
	case o.err != nil:
		return o.err
	case o.done:
		return errFinished
	}
	o.done = true
	if o.kind == bodyLength && o.left > 0 && !o.mute {
		return errTooLittle
	}
	if o.kind == bodyChunked && !o.mute {
		o.reserve(16)
		o.buf = append(o.buf, "0\r\n"...)
		if trailer != nil {
			o.buf = appendFields(o.buf, trailer)
		}
		o.buf = append(o.buf, "\r\n"...)
	}
	return o.flush()
}
