// Command udp-echo sends each datagram back with a word before it.
// Usage: udp-echo PORT WORD.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/isthmus-mesh/isthmus/samples/udp-echo/internal/udpecho"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: udp-echo PORT WORD")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "udp-echo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, port, word string) error {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort("", port))
	if err != nil {
		return fmt.Errorf("listen on UDP port %s: %w", port, err)
	}
	return udpecho.Serve(ctx, pc, word, slog.New(slog.NewTextHandler(os.Stdout, nil)).With("app", "udp-echo"))
}
