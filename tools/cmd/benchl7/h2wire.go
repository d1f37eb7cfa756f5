package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/net/http2/hpack"
)

// Frame types, flags and settings of HTTP/2 (RFC 9113).
const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	frameWindowUpdate = 8

	flagAck        = 1
	flagEndStream  = 1
	flagEndHeaders = 4
	flagPadded     = 8

	settingHeaderTable   = 1
	settingPush          = 2
	settingMaxStreams    = 3
	settingInitialWindow = 4

	frameHead = 9
	window    = 1 << 20 // for each stream
)

// frame is one of the other end's.
type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte // valid until the next read
}

// wire is a connection that carries HTTP/2: whole batches of frames are read and written at once, by one goroutine, and the send
// window of the connection is kept (that of a stream is always larger than a message).
type wire struct {
	conn       net.Conn
	in         []byte
	start, end int
	out        []byte
	window     int // what the other end takes now
	table      uint32
	received   int // since the other end's window was raised
	encoder    *hpack.Encoder
	block      bytes.Buffer
}

func newWire(conn net.Conn) *wire {
	w := &wire{conn: conn, in: make([]byte, 64<<10), window: 65535, table: 4096}
	w.encoder = hpack.NewEncoder(&w.block)
	return w
}

// open puts what each end begins with into the output.
func (w *wire) open() {
	var settings []byte
	for _, s := range [][2]uint32{{settingPush, 0}, {settingMaxStreams, 1000}, {settingInitialWindow, window}} {
		settings = binary.BigEndian.AppendUint16(settings, uint16(s[0]))
		settings = binary.BigEndian.AppendUint32(settings, s[1])
	}
	w.append(frameSettings, 0, 0, settings)
	w.raise(1<<30 - 65535)
}

// raise raises the other end's window of the connection.
func (w *wire) raise(n uint32) {
	w.append(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, n))
}

func (w *wire) append(kind, flags byte, stream uint32, payload []byte) {
	n := len(payload)
	w.out = append(w.out, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	w.out = binary.BigEndian.AppendUint32(w.out, stream)
	w.out = append(w.out, payload...)
}

func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.conn.Write(w.out)
	w.out = w.out[:0]
	return err
}

// fields encodes a header block.
func (w *wire) fields(fields []hpack.HeaderField) []byte {
	w.encoder.SetMaxDynamicTableSizeLimit(w.table)
	w.block.Reset()
	for _, f := range fields {
		_ = w.encoder.WriteField(f) // a buffer takes everything
	}
	return w.block.Bytes()
}

// fill waits for bytes.
func (w *wire) fill() error {
	if w.start > 0 {
		w.end = copy(w.in, w.in[w.start:w.end])
		w.start = 0
	}
	n, err := w.conn.Read(w.in[w.end:])
	w.end += n
	if n == 0 {
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		return fmt.Errorf("read frames: %w", err)
	}
	return nil
}

// next is the next frame that is there whole. What concerns the connection is dealt with.
func (w *wire) next() (f frame, ok bool, err error) {
	for {
		b := w.in[w.start:w.end]
		if len(b) < frameHead {
			return f, false, nil
		}
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if frameHead+n > len(w.in) {
			return f, false, fmt.Errorf("a frame of %d bytes", n)
		}
		if len(b) < frameHead+n {
			return f, false, nil
		}
		f = frame{kind: b[3], flags: b[4], stream: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1), payload: b[frameHead : frameHead+n]}
		w.start += frameHead + n
		if mine, err := w.connection(f); err != nil || !mine {
			return f, err == nil, err
		}
	}
}

// connection deals with a frame if it concerns the connection, and says whether it does.
func (w *wire) connection(f frame) (bool, error) {
	switch f.kind {
	case frameSettings:
		if f.flags&flagAck != 0 {
			return true, nil
		}
		for p := f.payload; len(p) >= 6; p = p[6:] {
			if binary.BigEndian.Uint16(p) == settingHeaderTable {
				w.table = min(4096, binary.BigEndian.Uint32(p[2:]))
			}
		}
		w.append(frameSettings, flagAck, 0, nil)
	case framePing:
		if f.flags&flagAck == 0 {
			w.append(framePing, flagAck, 0, f.payload)
		}
	case frameWindowUpdate:
		if f.stream == 0 {
			w.window += int(binary.BigEndian.Uint32(f.payload) & (1<<31 - 1))
		}
	case frameGoAway:
		return true, fmt.Errorf("the other end goes away: %x", f.payload)
	case frameData:
		if w.received += len(f.payload); w.received >= 1<<20 {
			w.raise(uint32(w.received))
			w.received = 0
		}
		return false, nil
	default:
		return f.kind != frameHeaders && f.kind != frameReset, nil
	}
	return true, nil
}
