package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// What a connection asks the server at the end of the tunnel for, in its first byte; a count of 8 bytes follows.
const (
	opUpload   = 'u' // takes that many bytes, then answers one
	opDownload = 'd' // sends that many
	opEcho     = 'e' // sends each message back; the count is unused
)

const (
	headLen     = 9
	messageSize = 1024
	chunkSize   = 256 << 10
)

// serveApp is the server at the end of the tunnel.
func serveApp(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_ = answer(conn) // the client sees it fail
		}()
	}
}

func answer(conn net.Conn) error {
	var head [headLen]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if string(head[:]) == "CONNECT 1" { // from a proxy that hands the request on
		for end := []byte("CONNECT 1"); !bytes.HasSuffix(end, []byte("\r\n\r\n")); {
			var next [1]byte
			if _, err := io.ReadFull(conn, next[:]); err != nil {
				return err
			}
			end = append(end, next[0])
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return err
		}
		return answer(conn)
	}
	n := int64(binary.BigEndian.Uint64(head[1:]))
	switch head[0] {
	case opUpload:
		if err := swallow(conn, n); err != nil {
			return err
		}
		_, err := conn.Write([]byte{1})
		return err
	case opDownload:
		return produce(conn, n)
	case opEcho:
		return echo(conn)
	}
	return fmt.Errorf("unknown operation %q", head[0])
}

func echo(conn net.Conn) error {
	buf := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(conn, buf); err != nil {
			return err
		}
		if _, err := conn.Write(buf); err != nil {
			return err
		}
	}
}

func swallow(r io.Reader, n int64) error {
	buf := make([]byte, chunkSize)
	for n > 0 {
		k, err := r.Read(buf[:min(n, chunkSize)])
		n -= int64(k)
		if err != nil && n > 0 {
			return fmt.Errorf("%d bytes short: %w", n, err)
		}
	}
	return nil
}

func produce(w io.Writer, n int64) error {
	buf := make([]byte, chunkSize)
	for n > 0 {
		k, err := w.Write(buf[:min(n, chunkSize)])
		n -= int64(k)
		if err != nil {
			return err
		}
	}
	return nil
}

// dialer opens connections to the server at the end of a tunnel.
type dialer func(ctx context.Context) (net.Conn, error)

// through dials a proxy that knows where to go.
func through(proxy string) dialer {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", proxy)
	}
}

// ask opens a connection and sends the head.
func ask(ctx context.Context, dial dialer, op byte, n int) (net.Conn, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint64([]byte{op}, uint64(n))
	if _, err := conn.Write(head); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(2 * time.Minute))
}

// bulk moves n bytes over some connections at once: half of them up, then half of them down.
func bulk(conns int) func(ctx context.Context, dial dialer, n int) error {
	return func(ctx context.Context, dial dialer, n int) error {
		for _, op := range []byte{opUpload, opDownload} {
			var g errgroup.Group
			for range conns {
				g.Go(func() error { return transfer(ctx, dial, op, n/2/conns) })
			}
			if err := g.Wait(); err != nil {
				return err
			}
		}
		return nil
	}
}

func transfer(ctx context.Context, dial dialer, op byte, n int) error {
	conn, err := ask(ctx, dial, op, n)
	if err != nil {
		return err
	}
	defer conn.Close()
	if op == opDownload {
		return swallow(conn, int64(n))
	}
	if err := produce(conn, int64(n)); err != nil {
		return err
	}
	return swallow(conn, 1)
}

// roundTrips sends n messages and awaits each answer, spread over some connections at once.
func roundTrips(conns int) func(ctx context.Context, dial dialer, n int) error {
	return func(ctx context.Context, dial dialer, n int) error {
		var g errgroup.Group
		for range conns {
			g.Go(func() error {
				conn, err := ask(ctx, dial, opEcho, 0)
				if err != nil {
					return err
				}
				defer conn.Close()
				return pingPong(conn, max(n/conns, 1))
			})
		}
		return g.Wait()
	}
}

func pingPong(conn net.Conn, n int) error {
	buf := make([]byte, messageSize)
	for range n {
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			return err
		}
	}
	return nil
}

// setups makes n short connections, some of them at once.
func setups(conns int) func(ctx context.Context, dial dialer, n int) error {
	return func(ctx context.Context, dial dialer, n int) error {
		var g errgroup.Group
		for range conns {
			g.Go(func() error {
				for range max(n/conns, 1) {
					if err := oneShot(ctx, dial); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return g.Wait()
	}
}

// oneShot opens a connection, makes one round trip, closes and sees the end.
func oneShot(ctx context.Context, dial dialer) error {
	conn, err := ask(ctx, dial, opEcho, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := pingPong(conn, 1); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the other end does not close: %w", err)
	}
	return nil
}

// memory that an idle connection costs, in bytes.
type memory struct{ client, server float64 }

// sleepTime bounds the wait until all connections sleep.
const sleepTime = 24 * netx.SleepAfter

// measureIdle opens n connections, uses each once, leaves them alone, until they sleep if they ever do, and returns by how much the proxies
// have grown.
func measureIdle(ctx context.Context, t *tunnel, n int) (m memory, err error) {
	clientBefore, serverBefore, err := t.memory()
	if err != nil {
		return m, err
	}
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range conns {
		g.Go(func() error {
			conn, err := ask(ctx, t.dial, opEcho, 0)
			if err != nil {
				return err
			}
			conns[i] = conn
			return pingPong(conn, 1)
		})
	}
	if err := g.Wait(); err != nil {
		return m, err
	}
	if t.kind != awake {
		if err := t.sleeps(ctx, n); err != nil {
			return m, err
		}
	}
	client, server, err := t.memory()
	m.client = float64(client-clientBefore) / float64(n)
	m.server = float64(server-serverBefore) / float64(n)
	return m, err
}

// sleeps returns when both proxies let n connections sleep.
func (t *tunnel) sleeps(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, sleepTime)
	defer cancel()
	for {
		client, err := t.client.ask("asleep")
		server, err2 := t.server.ask("asleep")
		if err = errors.Join(err, err2); err != nil {
			return err
		}
		if min(client, server) >= int64(n) {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d and %d of %d connections sleep", client, server, n)
		}
	}
}
