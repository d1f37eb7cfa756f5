package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

// directServer is the server at the end of the tunnel, as the end of TLS itself: the limit for every tunnel of TLS.
func directServer(own *certs.Workload) func(net.Listener) error {
	config := certs.HBONEServerConfig(func() (*certs.Workload, error) { return own, nil })
	return func(l net.Listener) error {
		return accept(l, spawn, func(conn *net.TCPConn) {
			defer conn.Close()
			_ = answer(tls.Server(conn, config)) // the client sees it fail
		})
	}
}

// answerDirect is the other end of TLS without proxies: it makes the load itself, as lines on standard input ask.
func answerDirect(s setup, lines *bufio.Scanner, out io.Writer) error {
	own, err := s.Identity.workload()
	if err != nil {
		return err
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		d := tls.Dialer{Config: certs.HBONEClientConfig(own, []string{s.Expect})}
		return d.DialContext(ctx, "tcp", s.Next)
	}
	fmt.Fprintln(out, "direct")
	for lines.Scan() {
		var name string
		var units int
		if _, err := fmt.Sscanf(lines.Text(), "load %s %d", &name, &units); err != nil {
			measured(lines.Text(), out)
			continue
		}
		err := errors.New("no such scenario")
		for _, s := range scenarios() {
			if s.name == name {
				err = s.load(context.Background(), dial, units)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintln(out, units)
	}
	return lines.Err()
}
