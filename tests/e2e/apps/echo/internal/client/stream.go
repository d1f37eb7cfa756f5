package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/field"
)

type streamSender struct {
	cfg    Config
	target *url.URL
	tls    *tls.Config
}

func (s *streamSender) close() {}

// send says a line and reads until the server, which sees the end of what is said, has said everything.
func (s *streamSender) send(ctx context.Context, _ int) (field.Lines, string, error) {
	out := s.cfg.describe()
	network := "tcp"
	if s.target.Scheme == "udp" {
		network = "udp"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, s.target.Host)
	if err != nil {
		return out, "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return out, "", err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if s.target.Scheme == "tls" {
		config := s.tls.Clone()
		if config.ServerName == "" {
			config.ServerName = s.target.Hostname()
		}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return out, "", err
		}
		conn = secured
		out.Add(field.TLSVersion, tls.VersionName(secured.ConnectionState().Version))
		out.Add(field.Alpn, secured.ConnectionState().NegotiatedProtocol)
	}
	answer, err := s.talk(conn, network)
	return out, answer, err
}

func (s *streamSender) talk(conn net.Conn, network string) (string, error) {
	var greeting []byte
	buffer := make([]byte, 64<<10)
	if s.cfg.ServerFirst {
		n, err := conn.Read(buffer)
		if err != nil {
			return "", fmt.Errorf("wait for the greeting: %w", err)
		}
		greeting = slices.Clone(buffer[:n])
	}
	if _, err := io.WriteString(conn, s.cfg.message()+"\n"); err != nil {
		return "", err
	}
	if network == "udp" {
		n, err := conn.Read(buffer)
		return string(buffer[:n]), err
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return "", err
		}
	}
	rest, err := io.ReadAll(io.LimitReader(conn, most))
	if err != nil {
		return "", err
	}
	if len(rest) == 0 && len(greeting) == 0 {
		return "", errors.New("the connection was closed without an answer")
	}
	return string(greeting) + string(rest), nil
}

// dnsSender looks a name up: dns://name, dns://name?server=10.96.0.10:53&protocol=tcp.
type dnsSender struct{ target *url.URL }

func (s *dnsSender) close() {}

func (s *dnsSender) send(ctx context.Context, _ int) (field.Lines, string, error) {
	var out field.Lines
	query := s.target.Query()
	resolver := &net.Resolver{PreferGo: true}
	if server, protocol := query.Get("server"), query.Get("protocol"); server != "" || protocol != "" {
		resolver.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if protocol != "" {
				network = protocol
			}
			if server != "" {
				address = server
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}
	addresses, err := resolver.LookupHost(ctx, s.target.Host)
	if err != nil {
		return out, "", err
	}
	slices.Sort(addresses)
	out.Add("Query", s.target.Host)
	out.Add(field.StatusCode, "200")
	return out, "ResponseBody=" + strings.Join(addresses, ",") + "\n", nil
}
