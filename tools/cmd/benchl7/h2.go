package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"
)

// serveH2 answers requests of HTTP/2.
func serveH2(conn net.Conn) error {
	if _, err := io.ReadFull(conn, make([]byte, len(preface))); err != nil {
		return errEnded
	}
	w := newWire(conn)
	w.open()
	fields := []hpack.HeaderField{
		{Name: ":status", Value: "200"},
		{Name: "content-type", Value: "application/json"},
		{Name: "cache-control", Value: "no-store"},
		{Name: "x-backend", Value: "pod-1"},
		{Name: "content-length", Value: strconv.Itoa(bodySize)},
	}
	body := payload()
	received := map[uint32]int{}
	var waiting []uint32 // for the window
	for {
		for len(waiting) > 0 && w.window >= bodySize {
			w.append(frameHeaders, flagEndHeaders, waiting[0], w.fields(fields))
			w.append(frameData, flagEndStream, waiting[0], body)
			w.window -= bodySize
			waiting = waiting[1:]
		}
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.fill(); err != nil {
			return err
		}
		for {
			f, ok, err := w.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if f.kind == frameData {
				received[f.stream] += len(f.payload)
			}
			if f.flags&flagEndStream == 0 || f.kind == frameReset {
				continue // what is reset was answered already, or its client tells
			}
			if n := received[f.stream]; n != bodySize {
				return fmt.Errorf("a request with %d bytes", n)
			}
			delete(received, f.stream)
			waiting = append(waiting, f.stream)
		}
	}
}

// h2Client has a number of requests under way over one connection.
type h2Client struct {
	*wire
	fields  []hpack.HeaderField
	body    []byte
	streams int
	nextID  uint32
	open    map[uint32]*pending
	free    []*pending
}

// pending is a request under way.
type pending struct {
	start    moment
	ok       bool
	received int
}

func newH2Client(conn net.Conn, r request, streams int) (*h2Client, error) {
	c := &h2Client{wire: newWire(conn), body: payload(), streams: streams, nextID: 1, open: map[uint32]*pending{}, fields: []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: r.authority},
		{Name: ":path", Value: r.path},
		{Name: "user-agent", Value: "bench/1.0"},
		{Name: "accept", Value: "*/*"},
		{Name: "accept-encoding", Value: "gzip"},
		{Name: "authorization", Value: "Bearer 0123456789abcdef0123456789abcdef"},
		{Name: "content-type", Value: "application/json"},
		{Name: "content-length", Value: strconv.Itoa(bodySize)},
	}}
	c.out = append(c.out, preface...)
	c.wire.open()
	return c, c.flush()
}

// run implements client.
func (c *h2Client) run(n int, times *stopwatch) error {
	for left := n; left > 0 || len(c.open) > 0; {
		for len(c.open) < c.streams && left > 0 && c.window >= bodySize {
			c.ask(times.now())
			left--
		}
		if err := c.exchange(times); err != nil {
			return err
		}
	}
	return nil
}

// pace implements client.
func (c *h2Client) pace(n int, p *pacer, times *stopwatch) error {
	defer c.conn.SetReadDeadline(time.Time{})
	late, due := false, p.next()
	for left := n; left > 0 || len(c.open) > 0; {
		room := len(c.open) < c.streams && c.window >= bodySize
		now := times.now()
		switch {
		case left > 0 && room && !now.Before(due):
			if !late {
				due = now // the clock's delay is ours, not the proxy's
			}
			c.ask(due)
			left--
			late, due = false, p.next()
			continue
		case left > 0 && room:
			c.conn.SetReadDeadline(due)
		default:
			late = late || left > 0 && !now.Before(due)
			c.conn.SetReadDeadline(time.Time{})
		}
		if err := c.exchange(times); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		late = late || left > 0 && !room && !times.now().Before(due)
	}
	return nil
}

// exchange sends what is there to send, and takes what comes.
func (c *h2Client) exchange(times *stopwatch) error {
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.fill(); err != nil {
		return err
	}
	for {
		f, ok, err := c.wire.next()
		if err != nil || !ok {
			return err
		}
		if err := c.take(f, times); err != nil {
			return err
		}
	}
}

func (c *h2Client) ask(now moment) {
	p := &pending{}
	if n := len(c.free); n > 0 {
		p, c.free = c.free[n-1], c.free[:n-1]
	}
	*p = pending{start: now}
	c.open[c.nextID] = p
	c.append(frameHeaders, flagEndHeaders, c.nextID, c.wire.fields(c.fields))
	c.append(frameData, flagEndStream, c.nextID, c.body)
	c.window -= bodySize
	c.nextID += 2
}

// take takes a frame of a response.
func (c *h2Client) take(f frame, times *stopwatch) error {
	p := c.open[f.stream]
	if f.kind == frameReset && p == nil {
		return nil // it is over
	}
	if p == nil || f.kind == frameReset || f.flags&flagPadded != 0 {
		return fmt.Errorf("a frame of stream %d with flags %x", f.stream, f.flags)
	}
	if f.kind == frameData {
		p.received += len(f.payload)
	} else {
		p.ok = begins200(f.payload)
	}
	if f.flags&flagEndStream == 0 {
		return nil
	}
	if !p.ok || p.received != bodySize {
		return fmt.Errorf("answered %d bytes, status 200: %v", p.received, p.ok)
	}
	times.add(p.start)
	delete(c.open, f.stream)
	c.free = append(c.free, p)
	return nil
}

// begins200 tells whether a header block begins with the status 200, which is an entry of the static table.
func begins200(block []byte) bool {
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // the size of the dynamic table
		more := block[0]&0x1f == 0x1f
		for block = block[1:]; more && len(block) > 0; block = block[1:] {
			more = block[0]&0x80 != 0
		}
	}
	return len(block) > 0 && block[0] == 0x88
}

func (c *h2Client) close() { c.conn.Close() }
