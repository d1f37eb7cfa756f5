package h1

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// input reads a connection into one borrowed buffer: first the head, which stays where it is while the exchange lasts, then, behind
// it, what is not read straight into the caller's memory. It belongs to one goroutine at a time.
type input struct {
	nc   net.Conn
	lend netx.Lender // nc, if it is one
	buf  []byte      // nil while nothing is borrowed
	r, w int         // buf[r:w] is read and not used
	keep int         // buf[:keep] is aliased by a head
	held []byte      // the buffer of a head that left too little room

	blank      int           // how many empty lines may precede a head
	idle, slow time.Duration // limits of the wait for a head, and for its end
	deadline   time.Time     // in force on nc
	strict     bool          // it holds for a body, too

	interrupted atomic.Bool // reading has ended before its time; for any goroutine
}

const (
	// minRoom is the least space that a read gets.
	minRoom = 512
	// directRead is from where a body is read straight into the caller's memory.
	directRead = 1 << 10
	// maxBlank is how many empty lines may precede a request: some clients end a body with one too many.
	maxBlank = 4
)

// restart forgets the head before and moves what is left to the front.
func (in *input) restart() {
	if in.held != nil {
		netx.Pool.Put(in.held)
		in.held = nil
	}
	in.keep = 0
	switch {
	case in.r == in.w && (len(in.buf) > netx.SmallBuffer || in.lend != nil && in.buf != nil):
		netx.Pool.Put(in.buf)
		in.buf, in.r, in.w = nil, 0, 0
	case in.r > 0:
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
}

// release gives the buffers back. Nobody may use what aliases them.
func (in *input) release() {
	if in.buf != nil {
		netx.Pool.Put(in.buf)
	}
	if in.held != nil {
		netx.Pool.Put(in.held)
	}
	in.buf, in.held, in.r, in.w, in.keep = nil, nil, 0, 0, 0
}

// head reads a head of at most limit bytes, up to and with its empty line. io.EOF means that the peer ended between messages.
func (in *input) head(limit int) ([]byte, error) {
	start, line, scan, blank := 0, 0, 0, 0
	in.r = 0
	for {
		for {
			n := bytes.IndexByte(in.buf[scan:in.w], '\n')
			if n < 0 {
				scan = in.w
				break
			}
			n += scan
			scan = n + 1
			if n == line || in.buf[n-1] != '\r' {
				return nil, bad("line does not end in CRLF")
			}
			empty := n-1 == line
			line = scan
			switch {
			case empty && n-1 == start:
				if blank++; blank > in.blank {
					return nil, bad("empty lines instead of a head")
				}
				start = scan
			case scan-start > limit:
				return nil, &Error{431, "head too large"}
			case empty:
				in.r, in.keep = scan, scan
				return in.buf[start:scan], nil
			}
		}
		if in.w-start > limit {
			return nil, &Error{431, "head too large"}
		}
		if c := in.first(start); c != 0 && tokenLower[c] == 0 && c != '\r' {
			return nil, bad("not HTTP")
		}
		if err := in.more(start); err != nil {
			return nil, err
		}
	}
}

func (in *input) first(start int) byte {
	if start < in.w {
		return in.buf[start]
	}
	return 0
}

// more reads on for head, whose bytes begin at start.
func (in *input) more(start int) error {
	lent := in.buf == nil && in.lend != nil
	if in.w == len(in.buf) && !lent {
		in.grow(0)
	}
	if in.w == start {
		in.arm(in.idle, false)
	} else {
		in.arm(in.slow, in.slow > 0)
	}
	var n int
	var err error
	if lent {
		in.buf, n, err = in.lend.ReadLent(netx.SmallBuffer)
	} else {
		n, err = in.nc.Read(in.buf[in.w:])
	}
	in.w += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) && in.w > start {
		return io.ErrUnexpectedEOF
	}
	return err
}

// grow replaces the buffer by a larger one that holds what is unread; the old one stays while a head aliases it.
func (in *input) grow(from int) {
	bigger := netx.Pool.Get(2 * (in.w - from + minRoom))
	n := copy(bigger, in.buf[from:in.w])
	switch {
	case in.buf == nil:
	case in.keep > 0:
		in.held = in.buf
	default:
		netx.Pool.Put(in.buf)
	}
	in.buf, in.r, in.w, in.keep = bigger, max(in.r-from, 0), n, 0
}

// fill reads more of the body into the buffer.
func (in *input) fill() error {
	in.makeRoom()
	n, err := in.read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	return err
}

func (in *input) makeRoom() {
	if in.r == in.w {
		in.r, in.w = in.keep, in.keep
	}
	if len(in.buf)-in.w >= minRoom {
		return
	}
	if in.r > in.keep {
		in.w = in.keep + copy(in.buf[in.keep:], in.buf[in.r:in.w])
		in.r = in.keep
	}
	if len(in.buf)-in.w < minRoom {
		in.grow(in.r)
	}
}

// read reads nc. A deadline that served for a head and passes now is lifted.
func (in *input) read(p []byte) (int, error) {
	for {
		n, err := in.nc.Read(p)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if in.strict || in.deadline.IsZero() || !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		in.arm(0, true)
		if in.interrupted.Load() { // its deadline may just have been lifted
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// interrupt makes reading fail for good, also for who waits.
func (in *input) interrupt() {
	in.interrupted.Store(true)
	in.nc.SetReadDeadline(past())
}

// take moves up to limit bytes of the body into p.
func (in *input) take(p []byte, limit int64) (int, error) {
	if int64(len(p)) > limit {
		p = p[:limit]
	}
	if in.r == in.w {
		if len(p) >= directRead {
			return in.read(p)
		}
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	return n, nil
}

// arm sets the read deadline, unless one that is nearly the same is in force: setting costs more than a request ought to.
func (in *input) arm(d time.Duration, exact bool) {
	if d == 0 {
		if !in.deadline.IsZero() {
			in.deadline = time.Time{}
			in.nc.SetReadDeadline(in.deadline)
		}
		return
	}
	now := time.Now()
	if left := in.deadline.Sub(now); left >= d-d/8 && left <= d || exact && in.deadline.After(now) && left <= d {
		return
	}
	in.deadline = now.Add(d)
	in.nc.SetReadDeadline(in.deadline)
}
