// Package client sends requests in many protocols and prints what came back, line by line, each with its request's number.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/field"
)

// Config of one call of the client.
type Config struct {
	URL, Method, Message string
	Headers              http.Header
	Count, Parallel      int
	// QPS bounds the rate of requests; 0 does not.
	QPS     int
	Timeout time.Duration
	// HTTP2 without TLS is by prior knowledge.
	HTTP2, FollowRedirects, NewConnections, ServerFirst bool
	// CAFile, CertFile, KeyFile, ServerName, ALPN and Insecure are for TLS.
	CAFile, CertFile, KeyFile, ServerName string
	ALPN                                  []string
	Insecure                              bool
}

// sender sends requests of one protocol. It returns the lines about the call and those of the answer.
type sender interface {
	send(ctx context.Context, number int) (call field.Lines, answer string, err error)
	close()
}

// Run sends all requests and prints to out in their order; what failed goes to problems, and makes it return an error.
func Run(ctx context.Context, cfg Config, out, problems io.Writer) error {
	target, err := url.Parse(cfg.URL)
	if err != nil {
		return err
	}
	s, err := newSender(cfg, target)
	if err != nil {
		return err
	}
	defer s.close()
	results := make([]result, max(1, cfg.Count))
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range min(max(1, cfg.Parallel), len(results)) {
		workers.Go(func() {
			for n := range numbers {
				results[n] = one(ctx, cfg, s, n)
			}
		})
	}
	var pace *time.Ticker
	if cfg.QPS > 0 {
		pace = time.NewTicker(time.Second / time.Duration(cfg.QPS))
		defer pace.Stop()
	}
	for n := range results {
		if pace != nil && n > 0 {
			<-pace.C
		}
		numbers <- n
	}
	close(numbers)
	workers.Wait()
	failed := 0
	for n, r := range results {
		if r.err != nil {
			failed++
			fmt.Fprintf(problems, "[%d error] %v\n", n, r.err)
			continue
		}
		r.print(out, n)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d requests failed", failed, len(results))
	}
	return nil
}

type result struct {
	call   string
	answer string
	err    error
}

func one(ctx context.Context, cfg Config, s sender, number int) result {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	started := time.Now()
	call, answer, err := s.send(ctx, number)
	call.Add(field.Latency, time.Since(started).String())
	return result{call: call.String(), answer: answer, err: err}
}

// print ends with an empty line: what reads several answers splits there.
func (r result) print(out io.Writer, number int) {
	for line := range strings.Lines(r.call) {
		fmt.Fprintf(out, "[%d] %s", number, line)
	}
	for _, line := range strings.Split(strings.TrimRight(r.answer, "\n"), "\n") {
		if line = strings.TrimRight(line, "\r"); line != "" {
			fmt.Fprintf(out, "[%d body] %s\n", number, line)
		}
	}
	fmt.Fprintln(out)
}

func newSender(cfg Config, target *url.URL) (sender, error) {
	config, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	switch target.Scheme {
	case "http", "https":
		return newHTTPSender(cfg, target, config), nil
	case "ws", "wss":
		return &webSocketSender{cfg: cfg, target: target, tls: config}, nil
	case "grpc", "grpcs":
		return newGRPCSender(cfg, target, config)
	case "tcp", "tls", "udp":
		if target.Port() == "" {
			return nil, fmt.Errorf("%s: want a port", target)
		}
		return &streamSender{cfg: cfg, target: target, tls: config}, nil
	case "dns":
		return &dnsSender{target: target}, nil
	}
	return nil, fmt.Errorf("%q: want http, https, ws, wss, grpc, grpcs, tcp, tls, udp or dns", target.Scheme)
}

// tls is the client's side of TLS. Servers are trusted without --ca: the tests' certificates are made up.
func (c Config) tls() (*tls.Config, error) {
	out := &tls.Config{ServerName: c.ServerName, NextProtos: c.ALPN, InsecureSkipVerify: c.Insecure || c.CAFile == ""} //nolint:gosec // as said
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New(c.CAFile + ": no certificates")
		}
	}
	if c.CertFile != "" {
		certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{certificate}
	}
	return out, nil
}

// describe tells what is asked.
func (c Config) describe() field.Lines {
	var out field.Lines
	out.Add(field.ForwarderURL, c.URL)
	if c.Message != "" {
		out.Add(field.Message, c.Message)
	}
	out.Headers(field.Header, c.Headers)
	return out
}
