package tlsrec

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

const (
	// batch is how much data goes into one write.
	batch = 16 * maxContent
	// heavy is from how much data on sealing and sending it takes a turn.
	heavy = maxContent / 2
	// updateLen is the size of the record of a KeyUpdate.
	updateLen = overhead + headLen
	// rekeyAfter is how many records one key protects; RFC 8446 section 5.5 allows AES-GCM 2^24.5.
	rekeyAfter = 1 << 23
	// farewellTime bounds the wait for an alert where it cannot be sent without waiting.
	farewellTime = time.Second
)

// sender is the writing half of a Conn.
type sender struct {
	mu sync.Mutex // held during a write; guards the rest

	keys   *keys
	err    error  // why nothing more can be sent
	unsent []byte // what a deadline kept from being sent, which is first: records; data, where the kernel seals
	limit  uint64 // records per key; 0 is rekeyAfter
	kernel bool   // what is written to the socket are not records, but what the kernel makes records of

	try   func(fd uintptr) bool // write, made once
	b     []byte
	n     int
	errno syscall.Errno
	turn  turn
}

// Write implements net.Conn. When the write deadline passes, n counts what is sealed: its records are kept and sent before what is
// written next, so that the connection stays whole.
func (c *Conn) Write(p []byte) (int, error) { return c.put(p, false) }

// WriteOwned is Write for a caller who owns p and one byte behind it, which must be within cap(p): they are changed meanwhile.
func (c *Conn) WriteOwned(p []byte) (int, error) { return c.put(p, cap(p) > len(p)) }

func (c *Conn) put(p []byte, spare bool) (n int, err error) {
	tx := &c.tx
	tx.mu.Lock()
	for err == nil && (len(p) > 0 || len(tx.unsent) > 0) {
		if err = tx.err; err != nil {
			break
		}
		if len(tx.unsent) > 0 {
			err = c.catchUp()
			continue
		}
		part := p[:min(len(p), batch)]
		p = p[len(part):]
		if err = c.send(part, spare); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			n += len(part)
		}
	}
	if err == nil {
		err = tx.err
	}
	tx.mu.Unlock()
	c.leaveWrite()
	return n, err
}

// updateDue tells whether a KeyUpdate comes before that many more records. Called with tx.mu held, by one who updates then.
func (c *Conn) updateDue(records int) bool {
	limit := c.tx.limit
	if limit == 0 {
		limit = rekeyAfter
	}
	owed := c.updateOwed.Load() && c.updateOwed.CompareAndSwap(true, false)
	return owed || c.tx.keys.seq+uint64(records) > limit
}

// send seals and sends one batch.
func (c *Conn) send(p []byte, spare bool) error {
	tx := &c.tx
	records := (len(p) + maxContent - 1) / maxContent
	if tx.kernel {
		return c.sendToKernel(p, records)
	}
	room := len(p) + records*overhead
	rekey := c.updateDue(records)
	if rekey {
		room += updateLen
	}
	buf := netx.Pool.Get(room)
	defer netx.Pool.Put(buf)
	out := buf[:0]
	if rekey {
		var err error
		if out, err = tx.rekey(out); err != nil {
			tx.end(err)
			return err
		}
	}
	if len(p) >= heavy {
		tx.turn.take()
	}
	for len(p) > 0 {
		n := min(len(p), maxContent)
		out = tx.keys.seal(out, typeApplicationData, p[:n], spare)
		p = p[n:]
	}
	err := c.flush(out)
	tx.turn.give()
	return err
}

// sendToKernel is send where the kernel seals.
func (c *Conn) sendToKernel(p []byte, records int) error {
	tx := &c.tx
	if err := c.updateFirst(records); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			tx.unsent = append(tx.unsent, p...)
		}
		return err
	}
	if len(p) >= heavy {
		tx.turn.take()
	}
	err := c.flush(p)
	tx.turn.give()
	return err
}

// rekey appends a KeyUpdate and goes on to the next keys. It asks for none of the peer, which knows its own limits.
func (tx *sender) rekey(out []byte) ([]byte, error) {
	out = tx.keys.seal(out, typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, 0}, false)
	return out, tx.keys.update()
}

// UpdateKeys changes the keys of what is sent from here on; with request the peer is asked to do the same.
func (c *Conn) UpdateKeys(request bool) error {
	tx := &c.tx
	tx.mu.Lock()
	err := tx.err
	if err == nil && len(tx.unsent) > 0 {
		err = c.catchUp()
	}
	message := []byte{messageKeyUpdate, 0, 0, 1, flag(request)}
	switch {
	case err != nil:
	case tx.kernel:
		err = c.updateInKernel(flag(request))
	default:
		out := tx.keys.seal(nil, typeHandshake, message, false)
		if err = tx.keys.update(); err == nil {
			err = c.flush(out)
		}
	}
	tx.mu.Unlock()
	c.leaveWrite()
	return err
}

// updateFirst sends a KeyUpdate, where the kernel seals, if one is due before that many records. Called with tx.mu held.
func (c *Conn) updateFirst(records int) error {
	if !c.updateDue(records) {
		return nil
	}
	err := c.updateInKernel(0)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.updateOwed.Store(true)
	}
	return err
}

// flush sends what is ready for the socket. What a deadline keeps from being sent is kept.
func (c *Conn) flush(out []byte) error {
	n, err := c.push(out)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.tx.unsent = append(c.tx.unsent, out[n:]...)
	default:
		c.tx.end(err)
	}
	return err
}

// catchUp sends what an earlier deadline left.
func (c *Conn) catchUp() error {
	if c.tx.kernel {
		if err := c.updateFirst(len(c.tx.unsent)/maxContent + 1); err != nil {
			return err
		}
	}
	n, err := c.push(c.tx.unsent)
	c.tx.unsent = c.tx.unsent[n:]
	if len(c.tx.unsent) == 0 {
		c.tx.unsent = nil
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.tx.end(err)
	}
	return err
}

func (c *Conn) push(b []byte) (int, error) {
	if c.raw == nil {
		return c.nc.Write(b)
	}
	tx := &c.tx
	tx.b, tx.n, tx.errno = b, 0, 0
	err := c.raw.Write(tx.try)
	tx.b = nil
	if err == nil && tx.errno != 0 {
		err = &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("write", tx.errno)}
	}
	return tx.n, err
}

// write is called when the socket may take something; false waits, without a turn.
func (tx *sender) write(fd uintptr) bool {
	for tx.n < len(tx.b) {
		n, errno := netx.WriteNow(fd, tx.b[tx.n:])
		if tx.errno = errno; errno != 0 {
			tx.turn.give()
			return errno != syscall.EAGAIN
		}
		tx.n += n
		if tx.kernel {
			tx.keys.counted(n)
		}
	}
	return true
}

// errCloseSent is what writing answers after CloseWrite.
var errCloseSent = fmt.Errorf("TLS: close_notify is sent: %w", net.ErrClosed)

// CloseWrite sends close_notify; reading goes on.
func (c *Conn) CloseWrite() error {
	tx := &c.tx
	tx.mu.Lock()
	err := tx.err
	if err == nil && len(tx.unsent) > 0 {
		err = c.catchUp()
	}
	if err == nil {
		alert := []byte{1, byte(AlertCloseNotify)}
		if tx.kernel {
			err = c.sendRecord(typeAlert, alert)
		} else {
			err = c.flush(tx.keys.seal(nil, typeAlert, alert, false))
		}
		tx.end(errCloseSent)
	}
	tx.mu.Unlock()
	c.leaveWrite()
	return err
}

// farewell sends an alert without waiting for a peer that does not read: what does not fit is of no use to it. Called with tx.mu
// held, at a boundary of records, as the last thing that is sent.
func (c *Conn) farewell(a Alert) {
	level := byte(2)
	if a == AlertCloseNotify {
		level = 1
	}
	if c.tx.kernel {
		_ = c.control(func(fd int) error { return sendRecordNow(fd, typeAlert, []byte{level, byte(a)}) })
		return
	}
	out := c.tx.keys.seal(nil, typeAlert, []byte{level, byte(a)}, false)
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) { _, _ = netx.WriteNow(fd, out) })
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(farewellTime))
	_, _ = c.nc.Write(out) // best effort
}

// end makes err final, unless there is one, and erases the keys.
func (tx *sender) end(err error) {
	if tx.err == nil {
		tx.err = err
	}
	tx.keys.erase()
	tx.unsent = nil
}
