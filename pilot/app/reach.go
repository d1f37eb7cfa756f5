package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Waiting for an API server that is not there yet.
const (
	reachFirst = 200 * time.Millisecond
	reachLast  = 5 * time.Second
)

// reach calls do again for as long as the API server does not answer.
func (p *plane) reach(ctx context.Context, what string, do func() error) error {
	for wait := reachFirst; ; wait = min(2*wait, reachLast) {
		err := do()
		switch {
		case err == nil:
			return nil
		case apierrors.IsForbidden(err):
			return fmt.Errorf("%s: %w: does the control plane's ServiceAccount have its Role?", what, err)
		case !isAway(err):
			return fmt.Errorf("%s: %w", what, err)
		}
		p.cfg.Log.Warn("the API server does not answer; waiting for it", "for", what, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(wait):
		}
	}
}

// isAway tells whether an error will pass by itself.
func isAway(err error) bool {
	var network net.Error
	var request *url.Error
	return errors.As(err, &network) || errors.As(err, &request) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}
