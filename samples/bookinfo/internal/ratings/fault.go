package ratings

import (
	"context"
	"errors"
	"time"
)

// How the misbehaving versions misbehave.
const (
	delay             = 7 * time.Second
	unavailablePeriod = 60 * time.Second
	// unhealthyPeriod is longer than the ten minutes after which Kubernetes
	// forgets its restart back-off.
	unhealthyPeriod = 15 * time.Minute
)

// errUnavailable is the fault that a caller sees as 503.
var errUnavailable = errors.New("unavailable")

// fault decides which requests fail, by the service's version. The periodic
// ones are computed from the time since start, so there is no ticker to own.
type fault struct {
	version string
	start   time.Time
	now     func() time.Time
	random  func() float64 // in [0,1)
}

func newFault(version string, now func() time.Time, random func() float64) fault {
	return fault{version: version, start: now(), now: now, random: random}
}

// inject waits or fails as the version demands; nil means: answer as usual.
func (f fault) inject(ctx context.Context) error {
	switch f.version {
	case VersionFaulty:
		if f.random() < 0.5 {
			return errUnavailable
		}
	case VersionDelayed:
		if f.random() < 0.5 {
			return wait(ctx, delay)
		}
	case VersionUnavailable:
		if f.oddPeriod(unavailablePeriod) {
			return errUnavailable
		}
	case VersionUnhealthy:
		if f.oddPeriod(unhealthyPeriod) {
			return errUnavailable
		}
	}
	return nil
}

// healthy is what /health reports.
func (f fault) healthy() bool {
	return f.version != VersionUnhealthy || !f.oddPeriod(unhealthyPeriod)
}

// oddPeriod is false for the first period after start, true for the second,
// and so on.
func (f fault) oddPeriod(period time.Duration) bool {
	return f.now().Sub(f.start)/period%2 == 1
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
