package h1

import (
	"context"
	"log/slog"
	"time"
)

// ServerConfig configures [Serve]; the zero value is ready to use.
type ServerConfig struct {
	// Drain, when it ends, starts a graceful shutdown: responses say "connection: close", and the connection ends with the exchange
	// that is under way.
	Drain context.Context //nolint:containedctx // the connections share it
	// Scheme of the requests that do not name one; default "http".
	Scheme string
	// MaxHeaderBytes bounds a request's head; default 60 KiB. Beyond it the answer is 431.
	MaxHeaderBytes int
	// MaxHeaders bounds the fields of a head and of trailers; default 100.
	MaxHeaders int
	// IdleTimeout bounds the wait for the next request; 0 is none.
	IdleTimeout time.Duration
	// HeaderTimeout bounds the time between the first byte of a head and its end; 0 is none. The answer is 408.
	HeaderTimeout time.Duration
	// Unfold takes header fields of several lines, which are refused otherwise: their line breaks become blanks.
	Unfold bool
	// RefuseHTTP10 answers HTTP/1.0 requests with 426.
	RefuseHTTP10 bool
	// ServerName is the server header of answers that the handler is not asked for; empty sends none.
	ServerName string
	// Refused, if set, is told of messages that were answered with status without asking the handler.
	Refused func(status int, reason string)
	// Log receives protocol errors of peers at debug level; nil discards.
	Log *slog.Logger
}

// ClientConfig configures [NewClient]; the zero value is ready to use.
type ClientConfig struct {
	// MaxHeaderBytes bounds a response's head; default 60 KiB.
	MaxHeaderBytes int
	// MaxHeaders bounds the fields of a head and of trailers; default 100.
	MaxHeaders int
}

const (
	defaultHeaderBytes = 60 << 10
	defaultHeaders     = 100
)

func (c *ServerConfig) defaults() {
	if c.Scheme == "" {
		c.Scheme = "http"
	}
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = defaultHeaderBytes
	}
	if c.MaxHeaders == 0 {
		c.MaxHeaders = defaultHeaders
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (c *ClientConfig) defaults() {
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = defaultHeaderBytes
	}
	if c.MaxHeaders == 0 {
		c.MaxHeaders = defaultHeaders
	}
}
