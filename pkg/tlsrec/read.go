package tlsrec

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

const (
	// maxUseless bounds records in a row that carry no data: empty ones, tickets, key updates.
	maxUseless = 32
	// freeUpdates is how many KeyUpdates a peer has free; further ones must be rarer than one in recordsPerUpdate.
	freeUpdates      = 32
	recordsPerUpdate = 64
	// maxTicket bounds a NewSessionTicket.
	maxTicket = 64 << 10
)

// receiver is the reading half of a Conn.
type receiver struct {
	mu sync.Mutex // held during a read; guards the rest

	keys *keys
	buf  []byte // pooled, or nil while there is nothing to hold
	r, w int    // what is not opened yet: buf[r:w]
	data []byte // opened, not read yet; lies in buf
	err  error  // why there is no more

	reuse func() // see OnReuse; may be nil

	try   func(fd uintptr) bool // read, made once
	errno syscall.Errno
	n     int  // what try has read
	size  int  // of the buffer to read into
	turn  turn // of the one who reads, who may have it without mu

	message [headLen]byte // head of a handshake message, and a KeyUpdate's content
	have    int           // bytes of message
	skip    int           // bytes of a ticket still to come
	useless int           // records in a row without data
	records uint64        // data records opened
	updates uint64        // KeyUpdates received
}

// Read implements net.Conn. The end is io.EOF after close_notify, and io.ErrUnexpectedEOF without.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.rx.mu.Lock()
	n := 0
	err := c.nextLocked()
	if err == nil {
		n = copy(p, c.rx.data)
		c.rx.data = c.rx.data[n:]
	}
	c.rx.mu.Unlock()
	c.leaveRead()
	return n, err
}

// Next returns the data of the next record, at least one byte, in memory of the connection, which the caller may overwrite. It is
// valid until the next call; with OnReuse, until that is called.
func (c *Conn) Next() ([]byte, error) {
	c.rx.mu.Lock()
	var p []byte
	err := c.nextLocked()
	if err == nil {
		p, c.rx.data = c.rx.data, nil
	}
	c.rx.mu.Unlock()
	c.leaveRead()
	return p, err
}

// OnReuse sets what a call of Next does before it overwrites what earlier ones have returned. It is set before the first one.
func (c *Conn) OnReuse(fn func()) { c.rx.reuse = fn }

// Release gives the read buffer back, with what is not read yet. Only the one who reads may call it, as the last thing.
func (c *Conn) Release() {
	c.rx.mu.Lock()
	c.rx.end(net.ErrClosed)
	c.rx.data = nil // it lies in the buffer
	c.rx.release()
	c.rx.mu.Unlock()
}

// nextLocked makes sure that there is data.
func (c *Conn) nextLocked() error {
	rx := &c.rx
	for len(rx.data) == 0 {
		if rx.err != nil {
			return rx.err
		}
		record, err := rx.whole()
		if err == nil && record == nil {
			if err = c.fill(); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					rx.end(err)
				}
				return err
			}
			continue
		}
		if err == nil {
			err = c.take(record)
		}
		if err != nil {
			c.endRead(err)
			return err
		}
	}
	return nil
}

// endRead makes err final and owes the peer an alert for it.
func (c *Conn) endRead(err error) {
	c.rx.end(err)
	var alert *AlertError
	if errors.As(err, &alert) && !alert.Remote {
		c.alertOwed.Store(uint32(alert.Alert))
		c.leaveWrite()
	}
}

// end makes err final, unless there is one, and erases the keys. The buffer stays: what was returned may lie in it.
func (rx *receiver) end(err error) {
	if rx.err == nil {
		rx.err = err
	}
	rx.keys.erase()
}

// whole returns the next record if all of it is here.
func (rx *receiver) whole() ([]byte, error) {
	have := rx.buf[rx.r:rx.w]
	if len(have) < headLen {
		return nil, nil
	}
	if recordType(have[0]) != typeApplicationData {
		return nil, refuse(AlertUnexpectedMessage, "a record that is not encrypted")
	}
	n := recordLen(have)
	if n > maxSealed {
		return nil, refuse(AlertRecordOverflow, "an oversized record")
	}
	if n < 1+tagLen {
		return nil, refuse(AlertBadRecordMAC, "a record too short to be encrypted") // as its tag is surely wrong
	}
	if len(have) < headLen+n {
		return nil, nil
	}
	rx.r += headLen + n
	return have[:headLen+n], nil
}

// take opens a record and does what it says.
func (c *Conn) take(record []byte) error {
	rx := &c.rx
	typ, p, alert := rx.keys.open(record)
	if alert != 0 {
		return refuse(alert, "a record that cannot be opened")
	}
	if typ != typeHandshake && (rx.have > 0 || rx.skip > 0) {
		return refuse(AlertUnexpectedMessage, "a record within a handshake message")
	}
	if len(p) > 0 && typ == typeApplicationData {
		rx.records++
		rx.useless = 0
		rx.data = p
		return nil
	}
	if rx.useless++; rx.useless > maxUseless {
		return refuse(AlertUnexpectedMessage, "too many records without data")
	}
	switch typ {
	case typeApplicationData:
		return nil
	case typeAlert:
		return rx.alert(p)
	case typeHandshake:
		return c.handshake(p)
	}
	return refuse(AlertUnexpectedMessage, "a record of unknown type")
}

func (rx *receiver) alert(p []byte) error {
	if len(p) != 2 {
		return refuse(AlertDecodeError, "an alert of wrong length")
	}
	switch a := Alert(p[1]); a {
	case AlertCloseNotify:
		return io.EOF
	case AlertUserCanceled:
		return nil // close_notify follows
	default:
		return &AlertError{Alert: a, Remote: true}
	}
}

// fill reads what the connection has, after what is there of a record.
func (c *Conn) fill() error {
	rx := &c.rx
	if rx.reuse != nil {
		rx.reuse()
	}
	if c.raw == nil {
		rx.room()
		n, err := c.nc.Read(rx.buf[rx.w:])
		rx.w += n
		if n > 0 {
			rx.fit(n)
			return nil
		}
		rx.rest()
		return ended(err)
	}
	err := c.raw.Read(rx.try)
	switch {
	case err != nil:
		rx.shrink()
		return err
	case rx.errno != 0:
		return &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("read", rx.errno)}
	case rx.n == 0:
		return ended(io.EOF)
	}
	rx.fit(rx.n)
	return nil
}

// ended is the end of a connection whose peer has not said goodbye.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// read is called by the poller when the socket may have something; false waits, without a buffer where there is nothing to hold.
func (rx *receiver) read(fd uintptr) bool {
	rx.turn.give() // others may wait for it
	rx.room()
	if rx.size >= netx.LargeBuffer {
		rx.turn.take()
	}
	rx.n, rx.errno = netx.ReadNow(fd, rx.buf[rx.w:])
	if rx.errno == syscall.EAGAIN {
		rx.turn.give()
		rx.rest()
		return false
	}
	rx.w += rx.n
	return true
}

// room takes a buffer, with what is there of a record at its start.
func (rx *receiver) room() {
	if rx.size == 0 {
		rx.size = netx.MediumBuffer
	}
	if len(rx.buf) >= rx.size {
		rx.w = copy(rx.buf, rx.buf[rx.r:rx.w])
		rx.r = 0
		return
	}
	rx.move(rx.size)
}

// move changes to a buffer of another size.
func (rx *receiver) move(size int) {
	next := netx.Pool.Get(size)
	n := copy(next, rx.buf[rx.r:rx.w])
	if rx.buf != nil {
		netx.Pool.Put(rx.buf)
	}
	rx.buf, rx.r, rx.w = next, 0, n
}

// fit grows the next buffer with the flow and lets it shrink again.
func (rx *receiver) fit(n int) {
	switch {
	case rx.w == len(rx.buf):
		rx.size = larger(len(rx.buf))
	case n < maxContent/2 && rx.size > netx.MediumBuffer:
		rx.size = netx.MediumBuffer
	}
}

func larger(size int) int {
	switch {
	case size < netx.MediumBuffer:
		return netx.MediumBuffer
	case size < netx.LargeBuffer:
		return netx.LargeBuffer
	}
	return netx.HugeBuffer
}

// rest gives the buffer back if it holds nothing.
func (rx *receiver) rest() {
	if rx.r == rx.w {
		rx.release()
	}
}

// shrink is rest for a connection that is idle: the piece of a record that came is kept in what it needs.
func (rx *receiver) shrink() {
	if rx.r == rx.w {
		rx.release()
	} else if rx.w-rx.r <= netx.SmallBuffer && len(rx.buf) > netx.SmallBuffer {
		rx.move(netx.SmallBuffer)
	}
}

func (rx *receiver) release() {
	if rx.buf != nil {
		netx.Pool.Put(rx.buf)
	}
	rx.buf, rx.r, rx.w = nil, 0, 0
}
