package netx

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
)

// Stream is a connection whose sending side can be closed on its own.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Counters are the bytes a relay moved so far; safe to read while it runs.
type Counters struct {
	Sent     atomic.Uint64 // downstream → upstream
	Received atomic.Uint64 // upstream → downstream
}

// Relay copies both ways until both directions ended.
func Relay(ctx context.Context, downstream, upstream Stream, c *Counters) error {
	return errors.ErrUnsupported
}
