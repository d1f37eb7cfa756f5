package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A message is a head, who sends it, the how manieth of its it is, and how long the rest is; and the rest, which follows from these.
const (
	headLen   = 20
	shortest  = 16
	longest   = 1500
	chunkSize = 16 << 10
)

// message number n of a connection.
func message(buf []byte, id, n uint64, size int) []byte {
	buf = binary.BigEndian.AppendUint64(buf[:0], id)
	buf = binary.BigEndian.AppendUint64(buf, n)
	buf = binary.BigEndian.AppendUint32(buf, uint32(size))
	x := id*0x9e3779b97f4a7c15 + n*0xbf58476d1ce4e5b9 + 1
	for len(buf) < headLen+size {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		buf = binary.BigEndian.AppendUint64(buf, x)
	}
	return buf[:headLen+size]
}

// sizeOf message n is anything between the shortest and the longest.
func sizeOf(id, n uint64) int { return shortest + int((id*31+n*977)%(longest-shortest)) }

// line is a connection whose messages come back as they were sent.
type line struct {
	conn      net.Conn
	id        uint64
	sent      uint64 // messages that came back
	out, back []byte
}

// exchange sends the next message, and checks what comes back.
func (c *line) exchange(size int) error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	c.out = message(c.out, c.id, c.sent, size)
	if _, err := c.conn.Write(c.out); err != nil {
		return fmt.Errorf("send message %d: %w", c.sent, err)
	}
	if err := c.expect(c.out); err != nil {
		return fmt.Errorf("message %d: %w", c.sent, err)
	}
	c.sent++
	return nil
}

func (c *line) expect(want []byte) error {
	if cap(c.back) < len(want) {
		c.back = make([]byte, len(want))
	}
	got := c.back[:len(want)]
	if n, err := io.ReadFull(c.conn, got); err != nil {
		return fmt.Errorf("%d of %d bytes came back: %w", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// finish ends the connection in order: nothing but the end must come back.
func (c *line) finish() error {
	defer c.conn.Close()
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return fmt.Errorf("end after %d messages: %w", c.sent, err)
		}
	}
	var more [1]byte
	if n, err := c.conn.Read(more[:]); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("at the end, after %d messages, %d bytes came, %w", c.sent, n, err)
	}
	return nil
}

// serveEcho sends back what comes, until the listener is closed.
func serveEcho(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 2<<10)
			for {
				n, err := conn.Read(buf)
				if n > 0 {
					if _, err := conn.Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					return // its client knows whether that was in order
				}
			}
		}()
	}
}
