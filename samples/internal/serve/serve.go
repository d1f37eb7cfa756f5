// Package serve runs the HTTP servers of the samples: dual-stack listening,
// access log, and a shutdown that lets running requests finish.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// DrainTimeout is how long a stopping server waits for running requests; it
// stays below Kubernetes' default grace period of 30 s.
const DrainTimeout = 20 * time.Second

// Listen opens port on every address of both families ([::], which accepts
// IPv4 too). On a machine without IPv6 it is 0.0.0.0.
func Listen(ctx context.Context, port string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("", port))
	if err != nil {
		return nil, fmt.Errorf("listen on port %s: %w", port, err)
	}
	return l, nil
}

// HTTP serves h on l, over HTTP/1.1 and HTTP/2 without TLS, until ctx ends;
// then it drains. It owns l and returns once every request has ended or
// DrainTimeout has passed.
func HTTP(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           AccessLog(h, log),
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}

	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	log.Info("listening", "address", l.Addr().String())

	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}

	log.Info("stopping: waiting for running requests", "timeout", DrainTimeout)
	// The signal's context is over; the drain has a deadline of its own.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTimeout)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("requests still running after the grace period are cut", "timeout", DrainTimeout)
		err = srv.Close()
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		log.Warn("serving had failed before", "error", ended)
	}
	return err
}
