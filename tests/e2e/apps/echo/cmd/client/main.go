// Command client sends requests and prints what came back. The end-to-end suites run it in pods:
//
//	client http://echo:8080/path -H x-user:jason --method=POST --count=10
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := client.Config{Headers: http.Header{}}
	var headers []string
	f := pflag.NewFlagSet("client", pflag.ContinueOnError)
	f.StringArrayVarP(&headers, "header", "H", nil, "request header, `name:value`; may be repeated; Host is the request's host")
	f.StringVar(&cfg.URL, "url", "", "what to ask, unless it is the argument")
	f.StringVar(&cfg.Method, "method", http.MethodGet, "HTTP method")
	f.StringVar(&cfg.Message, "msg", "", "body, or what is said in protocols without one")
	f.IntVar(&cfg.Count, "count", 1, "requests")
	f.IntVar(&cfg.Parallel, "parallel", 10, "requests at a time")
	f.IntVar(&cfg.QPS, "qps", 0, "requests per second (0: as fast as answers come)")
	f.DurationVar(&cfg.Timeout, "timeout", 15*time.Second, "of each request")
	f.BoolVar(&cfg.HTTP2, "http2", false, "speak HTTP/2, without TLS by prior knowledge")
	f.BoolVar(&cfg.FollowRedirects, "follow-redirects", false, "follow redirects")
	f.BoolVar(&cfg.NewConnections, "new-connection-per-request", false, "a connection per request")
	f.BoolVar(&cfg.ServerFirst, "server-first", false, "wait for the server's greeting")
	f.StringVar(&cfg.CAFile, "ca", "", "`file` of the roots that servers are verified with (default: not verified)")
	f.StringVar(&cfg.CertFile, "crt", "", "`file` of the client's certificate")
	f.StringVar(&cfg.KeyFile, "key", "", "`file` of the certificate's key")
	f.StringVar(&cfg.ServerName, "server-name", "", "name asked of TLS servers")
	f.StringSliceVar(&cfg.ALPN, "alpn", nil, "protocols offered to TLS servers")
	f.BoolVar(&cfg.Insecure, "insecure-skip-verify", false, "do not verify servers")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case f.NArg() == 1 && cfg.URL == "":
		cfg.URL = f.Arg(0)
	case f.NArg() > 0 || cfg.URL == "":
		return errors.New("want one URL: client http://host:port/path")
	}
	if !strings.Contains(cfg.URL, "://") {
		cfg.URL = "http://" + cfg.URL
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("-H %q: want name:value", h)
		}
		cfg.Headers.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return client.Run(ctx, cfg, os.Stdout, os.Stderr)
}
