// Package tcpecho is a line server over plain TCP: "hello" sent to a server
// with the prefix "one" comes back as "one hello".
package tcpecho

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

// Server is what is served; its fields are read only once Run has begun.
type Server struct {
	Ports  []string
	Prefix string // put before each line, with a space
	Banner string // sent as a line on connecting, where not empty
	Log    *slog.Logger
}

// Run listens on all ports and serves until ctx ends.
func (s Server) Run(ctx context.Context) error {
	var listeners []net.Listener
	for _, port := range s.Ports {
		l, err := serve.Listen(ctx, port)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return err
		}
		listeners = append(listeners, l)
	}
	return s.serve(ctx, listeners)
}

// serve owns the listeners. When ctx ends, or one of them fails, it closes them
// and all connections, and returns once nothing of it is running.
func (s Server) serve(ctx context.Context, listeners []net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, l := range listeners {
		s.Log.Info("listening", "address", l.Addr().String(), "prefix", s.Prefix, "banner", s.Banner)
		stop := context.AfterFunc(ctx, func() { l.Close() })
		defer stop()
		wg.Go(func() {
			if err := s.accept(ctx, l, &wg); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s Server) accept(ctx context.Context, l net.Listener, wg *sync.WaitGroup) error {
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		wg.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.Log.Info("connected", "remote", c.RemoteAddr().String(), "local", c.LocalAddr().String())
			lines, err := s.echo(c)
			if ctx.Err() != nil {
				err = nil // we closed it
			}
			s.Log.Info("disconnected", "remote", c.RemoteAddr().String(), "lines", lines, "error", err)
		})
	}
}

// echo answers lines of any length until the client has sent its last; it
// never holds more than a buffer of a line.
func (s Server) echo(c io.ReadWriter) (lines int, err error) {
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	if s.Banner != "" {
		fmt.Fprintf(w, "%s\n", s.Banner)
		if err := w.Flush(); err != nil {
			return 0, err
		}
	}
	lineStart := true
	for {
		part, err := r.ReadSlice('\n')
		if len(part) > 0 {
			if lineStart {
				lines++
				fmt.Fprintf(w, "%s ", s.Prefix)
			}
			// bufio.Writer keeps its first error, Flush reports it.
			_, _ = w.Write(part)
			lineStart = part[len(part)-1] == '\n'
		}
		if ferr := w.Flush(); ferr != nil {
			return lines, ferr
		}
		switch {
		case err == io.EOF:
			return lines, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return lines, err
		}
	}
}
