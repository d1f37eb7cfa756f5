// Package pack writes and reads values one behind the other, without names or types: for messages between two instances of the same
// program, which agree on a version first. A Reader does not trust what it reads: it takes no more memory than the message has.
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Writer appends values. The zero value is an empty message.
type Writer struct{ b []byte }

// Finish returns the message, and forgets it.
func (w *Writer) Finish() []byte {
	b := w.b
	w.b = nil
	return b
}

// Uint appends a number.
func (w *Writer) Uint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }

// Int appends a number that may be negative.
func (w *Writer) Int(v int64) { w.b = binary.AppendVarint(w.b, v) }

// Bool appends a truth value.
func (w *Writer) Bool(v bool) {
	if v {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}

// Bytes appends bytes. If memory has to grow, what held the message so far is cleared: it may hold a secret.
func (w *Writer) Bytes(v []byte) {
	w.room(len(v) + binary.MaxVarintLen64)
	w.Uint(uint64(len(v)))
	w.b = append(w.b, v...)
}

// Text appends a text.
func (w *Writer) Text(v string) {
	w.room(len(v) + binary.MaxVarintLen64)
	w.Uint(uint64(len(v)))
	w.b = append(w.b, v...)
}

// Addr appends an address with a port; the zero value, too.
func (w *Writer) Addr(a netip.AddrPort) {
	if a.IsValid() {
		w.Text(a.String())
	} else {
		w.Text("")
	}
}

func (w *Writer) room(n int) {
	if cap(w.b)-len(w.b) >= n {
		return
	}
	bigger := make([]byte, len(w.b), 2*cap(w.b)+n+256)
	copy(bigger, w.b)
	clear(w.b)
	w.b = bigger
}

// errShort is a message that ends too early.
var errShort = errors.New("the message is cut short")

// Reader reads what a Writer has written, in the same order. After an error everything is zero.
type Reader struct {
	b   []byte
	err error
}

// NewReader reads b, of which it keeps no part.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Err returns what was wrong so far.
func (r *Reader) Err() error { return r.err }

// Fail makes err the outcome, unless there is one.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// End returns what was wrong; that there is more is wrong, too.
func (r *Reader) End() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.b))
	}
	return r.err
}

// Uint reads a number of at most limit.
func (r *Reader) Uint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.err == nil && (n <= 0 || v > limit) {
		r.Fail(fmt.Errorf("a number above %d, or none", limit))
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Int reads a number.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.b)
	if r.err == nil && n <= 0 {
		r.Fail(errShort)
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Bool reads a truth value.
func (r *Reader) Bool() bool {
	if r.err == nil && (len(r.b) == 0 || r.b[0] > 1) {
		r.Fail(errors.New("neither true nor false"))
	}
	if r.err != nil {
		return false
	}
	v := r.b[0] == 1
	r.b = r.b[1:]
	return v
}

// Bytes reads a copy of bytes; of none it is nil.
func (r *Reader) Bytes() []byte { return append([]byte(nil), r.span()...) }

// Text reads a text.
func (r *Reader) Text() string { return string(r.span()) }

// Borrow reads bytes without a copy: they are the message's own.
func (r *Reader) Borrow() []byte { return r.span() }

func (r *Reader) span() []byte {
	n := r.Uint(uint64(len(r.b)))
	if r.err == nil && n > uint64(len(r.b)) {
		r.Fail(errShort)
	}
	if r.err != nil {
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// Count reads the number of things that follow, each of at least one byte.
func (r *Reader) Count() int { return int(r.Uint(uint64(len(r.b)))) }

// Addr reads an address with a port.
func (r *Reader) Addr() netip.AddrPort {
	text := r.Text()
	if text == "" || r.err != nil {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		r.Fail(err)
	}
	return a
}
