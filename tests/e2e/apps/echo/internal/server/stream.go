package server

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/field"
)

// serveTCP answers the first bytes of each connection with what it saw, and echoes everything.
func (s *server) serveTCP(ctx context.Context, l net.Listener, p port) {
	if p.tls {
		l = tls.NewListener(l, s.tls.Clone())
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{} // guarded by mu
	stop := context.AfterFunc(ctx, func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range open {
			c.Close()
		}
	})
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			s.Log.Debug("no longer serving", "port", p.number, "reason", err)
			return
		}
		mu.Lock()
		open[c] = true
		mu.Unlock()
		s.tasks.Go(func() {
			defer func() {
				mu.Lock()
				delete(open, c)
				mu.Unlock()
				c.Close()
			}()
			if ctx.Err() == nil {
				s.echo(c, p)
			}
		})
	}
}

// echo serves one connection until the client has said everything.
func (s *server) echo(c net.Conn, p port) {
	described := false
	describe := func() bool {
		if described {
			return true
		}
		described = true
		_, err := io.WriteString(c, s.describeConn(c.RemoteAddr(), "TCP", p.number))
		return err == nil
	}
	if p.first && !describe() {
		return
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := c.Read(buffer)
		if n > 0 {
			if !describe() {
				return
			}
			if _, err := c.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (s *server) describeConn(from net.Addr, protocol string, number int) string {
	var out field.Lines
	out.Add(field.StatusCode, "200")
	out.Add(field.ServiceVersion, s.Version)
	out.Add(field.ServicePort, strconv.Itoa(number))
	out.Add(field.Cluster, s.Cluster)
	out.Add(field.Protocol, protocol)
	out.Add(field.IP, host(from))
	out.Add(field.Hostname, s.Hostname)
	return out.String()
}

// serveUDP answers each datagram with what it saw and the datagram.
func (s *server) serveUDP(ctx context.Context, conn net.PacketConn, number int) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			s.Log.Debug("no longer serving", "port", number, "reason", err)
			return
		}
		if _, err := conn.WriteTo(append([]byte(s.describeConn(from, "UDP", number)), buffer[:n]...), from); err != nil {
			s.Log.Debug("datagram not answered", "to", from, "error", err)
		}
	}
}
