// Command tcp-echo sends each line back with a word before it.
//
// Usage: tcp-echo [-banner TEXT] PORT[,PORT…] WORD
//
// With -banner the server speaks first, as SMTP or MySQL do: it greets each
// connection with a line of TEXT.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/samples/tcp-echo/internal/tcpecho"
)

func main() {
	banner := flag.String("banner", "", "line with which the server greets each connection, before the client has said anything")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: tcp-echo [-banner TEXT] PORT[,PORT...] WORD")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	srv := tcpecho.Server{
		Ports: strings.Split(flag.Arg(0), ","), Prefix: flag.Arg(1), Banner: *banner,
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil)).With("app", "tcp-echo"),
	}
	if err := srv.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "tcp-echo:", err)
		os.Exit(1)
	}
}
