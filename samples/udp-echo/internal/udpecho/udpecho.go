// Package udpecho sends each datagram back to its sender, with a word before it.
package udpecho

import (
	"context"
	"fmt"
	"log/slog"
	"net"
)

// Serve answers on pc, which it owns, until ctx ends.
func Serve(ctx context.Context, pc net.PacketConn, prefix string, log *slog.Logger) error {
	defer pc.Close()
	stop := context.AfterFunc(ctx, func() { pc.Close() })
	defer stop()
	log.Info("listening", "address", pc.LocalAddr().String(), "prefix", prefix)
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read on %s: %w", pc.LocalAddr(), err)
		}
		log.Info("datagram", "remote", from.String(), "bytes", n)
		answer := append([]byte(prefix+" "), buf[:n]...)
		if _, err := pc.WriteTo(answer, from); err != nil && ctx.Err() == nil {
			log.Warn("answer not sent", "remote", from.String(), "error", err)
		}
	}
}
