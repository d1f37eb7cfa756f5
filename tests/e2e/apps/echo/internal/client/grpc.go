package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/field"
	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/grpcecho"
)

type grpcSender struct {
	cfg    Config
	dial   func() (*grpc.ClientConn, error)
	shared *grpc.ClientConn // nil with a connection per request
}

func newGRPCSender(cfg Config, target *url.URL, config *tls.Config) (*grpcSender, error) {
	address := target.Host
	if target.Port() == "" {
		address = net.JoinHostPort(target.Hostname(), "80")
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("isthmus-echo-client")}
	if target.Scheme == "grpcs" {
		options[0] = grpc.WithTransportCredentials(credentials.NewTLS(config))
	}
	if host := cfg.Headers.Get("Host"); host != "" {
		options = append(options, grpc.WithAuthority(host))
	}
	s := &grpcSender{cfg: cfg, dial: func() (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+address, options...)
	}}
	if !cfg.NewConnections {
		var err error
		if s.shared, err = s.dial(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *grpcSender) close() {
	if s.shared != nil {
		s.shared.Close()
	}
}

func (s *grpcSender) send(ctx context.Context, number int) (field.Lines, string, error) {
	out := s.cfg.describe()
	conn := s.shared
	if conn == nil {
		var err error
		if conn, err = s.dial(); err != nil {
			return out, "", err
		}
		defer conn.Close()
	}
	for name, values := range s.cfg.Headers {
		if name == "Host" {
			continue
		}
		for _, value := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), value)
		}
	}
	var header, trailer metadata.MD
	message := s.cfg.Message
	if message == "" {
		message = fmt.Sprintf("request #%d", number)
	}
	answer, err := grpcecho.Call(ctx, conn, message, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		return out, "", err
	}
	// A call that succeeded; the suites want HTTP's word for it.
	out.Add(field.StatusCode, "200")
	out.Headers(field.ResponseHeader, http.Header(metadata.Join(header, trailer)))
	return out, answer, nil
}
