package h2conn

import (
	"context"
	"log/slog"
	"time"
)

// ServerConfig configures [Serve]; the zero value is ready to use.
type ServerConfig struct {
	// Drain, when it ends, starts a graceful shutdown: GOAWAY, open streams finish, then the connection ends.
	Drain context.Context //nolint:containedctx // the connections share it
	// MaxConcurrentStreams is how many requests a client may have open; default 100.
	MaxConcurrentStreams uint32
	// IdleTimeout ends a connection that carries no stream for so long; 0 is none.
	IdleTimeout time.Duration
	// HeaderTimeout bounds the time between the beginning of a header block and its end; 0 is none. The connection ends then: nothing
	// else can come before the rest of the block.
	HeaderTimeout time.Duration
	// Refused, if set, is told of a request that did not come in time, with the status that says so.
	Refused func(status int, reason string)
	// AnyPath takes a :path that is no path of a URI: one with bytes that are not ASCII, or without a leading slash where the scheme is no HTTP. Such requests are
	// reset otherwise.
	AnyPath bool
	// Go runs a request's handler on a goroutine; nil is a fresh one for each. Many requests are short and need much stack: who keeps
	// goroutines for the next ones saves growing it again.
	Go func(func())
	Options
}

// ClientConfig configures [NewClient]; the zero value is ready to use.
type ClientConfig struct {
	// MaxConcurrentStreams is how many requests we have open at most, when the peer allows more; default 2³¹−1.
	MaxConcurrentStreams uint32
	Options
}

// Options are what both ends of a connection have in common.
type Options struct {
	// MaxHeaderBytes bounds a header list, counted as the protocol counts; default 60 KiB. A server answers 431 beyond it.
	MaxHeaderBytes int
	// MaxHeaders bounds the fields of a header list; default 100.
	MaxHeaders int
	// StreamWindow and ConnWindow are how much a peer may send before we have read it; default 1 MiB and 16 MiB. The latter also
	// bounds what a connection buffers before slow streams hold up the others.
	StreamWindow, ConnWindow uint32
	// KeepaliveInterval is after how much silence a PING is sent; default 0 is never. Without anything from the peer for
	// KeepaliveTimeout (default 20 s) more, the connection fails.
	KeepaliveInterval, KeepaliveTimeout time.Duration
	// WriteTimeout ends a connection whose peer does not read: a single write, of some 64 KiB at the most, lasts for so long. It is
	// looked at as rarely, so that twice the time may pass. Default 5 min.
	WriteTimeout time.Duration
	// Log receives protocol errors of peers at debug level; nil discards.
	Log *slog.Logger
}

func (o *Options) defaults() {
	if o.MaxHeaderBytes == 0 {
		o.MaxHeaderBytes = 60 << 10
	}
	if o.MaxHeaders == 0 {
		o.MaxHeaders = 100
	}
	if o.StreamWindow == 0 {
		o.StreamWindow = 1 << 20
	}
	if o.ConnWindow == 0 {
		o.ConnWindow = 16 << 20
	}
	if o.KeepaliveTimeout == 0 {
		o.KeepaliveTimeout = 20 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 5 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}
