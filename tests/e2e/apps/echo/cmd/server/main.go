// Command server is the echo workload of the end-to-end suites.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/server"
)

// Set by the linker.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var cfg server.Config
	var verbose, onlyVersion bool
	f := pflag.NewFlagSet("server", pflag.ContinueOnError)
	f.IntSliceVar(&cfg.HTTP, "port", nil, "HTTP/1 and HTTP/2 `port`; may be repeated")
	f.IntSliceVar(&cfg.GRPC, "grpc", nil, "gRPC `port`; may be repeated")
	f.IntSliceVar(&cfg.TCP, "tcp", nil, "TCP `port`; may be repeated")
	f.IntSliceVar(&cfg.UDP, "udp", nil, "UDP `port`; may be repeated")
	f.IntSliceVar(&cfg.TLS, "tls", nil, "of the ports given, one that speaks TLS; may be repeated")
	f.IntSliceVar(&cfg.ServerFirst, "server-first", nil, "of the TCP ports, one that speaks before the client; may be repeated")
	f.StringVar(&cfg.Bind, "bind-ip", "", "`address` to listen on (default: all)")
	f.StringVar(&cfg.Version, "version", "", "version of the workload that answers tell")
	f.StringVar(&cfg.Cluster, "cluster", "", "cluster that answers tell")
	f.StringVar(&cfg.CertFile, "crt", "", "certificate `file` for TLS (default: one made up)")
	f.StringVar(&cfg.KeyFile, "key", "", "`file` of the certificate's key")
	f.BoolVarP(&verbose, "verbose", "v", false, "log every request")
	f.BoolVar(&onlyVersion, "build-version", false, "print the build's version")
	for _, name := range []string{"metrics", "istio-version", "uds", "disable-alpn", "bind-localhost", "instance-ip", "log_output_level"} {
		f.String(name, "", "accepted for compatibility; no effect")
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if onlyVersion {
		fmt.Println(cmp.Or(version, "dev"))
		return nil
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if len(cfg.HTTP)+len(cfg.GRPC)+len(cfg.TCP)+len(cfg.UDP) == 0 {
		cfg.HTTP, cfg.TCP, cfg.GRPC, cfg.UDP = []int{8080}, []int{9090}, []int{7070}, []int{9091}
	}
	var err error
	if cfg.Hostname, err = os.Hostname(); err != nil {
		return err
	}
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: level}))
	return server.Run(ctx, cfg)
}
