package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// bodySize is that of requests and of responses.
const bodySize = 1024

var errEnded = errors.New("the other end has closed the connection")

// request is what a client asks for.
type request struct{ authority, path string }

// message reads HTTP/1.1 messages that have a Content-Length, without looking at more than that.
type message struct {
	conn net.Conn
	buf  [8 << 10]byte
	held int // bytes in buf
}

// next reads a message and returns its head, which is valid until the next call, and the length of its body.
func (m *message) next() (head []byte, body int, err error) {
	total := -1
	headLen := 0
	for {
		if total < 0 {
			if i := bytes.Index(m.buf[:m.held], []byte("\r\n\r\n")); i >= 0 {
				headLen = i + 2
				if body, err = contentLength(m.buf[:headLen]); err != nil {
					return nil, 0, err
				}
				total = i + 4 + body
			}
		}
		if total >= 0 && m.held >= total {
			if m.held > total {
				return nil, 0, fmt.Errorf("%d bytes more than the message", m.held-total)
			}
			m.held = 0
			return m.buf[:headLen], body, nil
		}
		n, err := m.conn.Read(m.buf[m.held:])
		m.held += n
		if n == 0 {
			if m.held == 0 && errors.Is(err, io.EOF) {
				return nil, 0, errEnded
			}
			return nil, 0, fmt.Errorf("read a message: %w", err)
		}
	}
}

// contentLength finds the field, in any case.
func contentLength(head []byte) (int, error) {
	for rest := head; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\r\n"))
		rest = after
		if len(line) > 15 && line[14] == ':' && (line[0]|0x20) == 'c' && bytes.EqualFold(line[:14], []byte("content-length")) {
			return strconv.Atoi(string(bytes.TrimSpace(line[15:])))
		}
	}
	return 0, fmt.Errorf("no Content-Length in %q", head)
}

// serveH1 answers requests of HTTP/1.1.
func serveH1(conn net.Conn) error {
	response := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nX-Backend: pod-1\r\n"+
		"Content-Length: "+strconv.Itoa(bodySize)+"\r\n\r\n"), payload()...)
	m := &message{conn: conn}
	for {
		_, n, err := m.next()
		if err != nil {
			return err
		}
		if n != bodySize {
			return fmt.Errorf("a request with %d bytes", n)
		}
		if _, err := conn.Write(response); err != nil {
			return err
		}
	}
}

func payload() []byte { return bytes.Repeat([]byte("isthmus "), bodySize/8) }

// h1Client makes one request after the other over one connection.
type h1Client struct {
	message
	request []byte
}

func newH1Client(conn net.Conn, r request) *h1Client {
	return &h1Client{message: message{conn: conn}, request: append([]byte("POST "+r.path+" HTTP/1.1\r\nHost: "+r.authority+"\r\n"+
		"User-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n"+
		"Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(bodySize)+"\r\n\r\n"), payload()...)}
}

// run implements client.
func (c *h1Client) run(n int, times *stopwatch) error {
	for range n {
		if err := c.ask(times.now(), times); err != nil {
			return err
		}
	}
	return nil
}

// pace implements client.
func (c *h1Client) pace(n int, p *pacer, times *stopwatch) error {
	for range n {
		due := p.next()
		if left := time.Until(due); left > 0 {
			time.Sleep(left)
			due = times.now()
		}
		if err := c.ask(due, times); err != nil {
			return err
		}
	}
	return nil
}

// ask makes a request that counts from start.
func (c *h1Client) ask(start moment, times *stopwatch) error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	head, body, err := c.next()
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || body != bodySize {
		return fmt.Errorf("answered %q and %d bytes", head, body)
	}
	times.add(start)
	return nil
}

func (c *h1Client) close() { c.conn.Close() }
