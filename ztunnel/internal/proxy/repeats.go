package proxy

import (
	"errors"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

const (
	// The pause before an endpoint is tried once more grows from the first to the longest.
	firstPause, longestPause = 25 * time.Millisecond, 400 * time.Millisecond
	// hopPatience is how long a connection to a waypoint may take while there is time for another attempt; endpointPatience is that of
	// one to an endpoint of a service.
	hopPatience, endpointPatience = time.Second, 2 * time.Second
	// sureRepeats is how often a request is repeated on any route because the peer says that it has not acted on it.
	sureRepeats = 2
)

// remedy is what may be done about a failed attempt.
type remedy int

const (
	// none: the failure is a decision, or the peer may have got some of the connection's content.
	none remedy = iota
	// elsewhere: another endpoint may do better, the same one would not.
	elsewhere
	// anywhere: another endpoint, or the same one a little later.
	anywhere
)

// remedyFor tells what a failure allows on a route. A waypoint is replaced in the course of things, and everything of its services goes
// through it. An endpoint of a service gets a second choice. An address that the client chose gets none, unless the peer says that it
// has not acted.
func remedyFor(route l4.Route, err error) remedy {
	found := soundRemedy(route, err)
	switch {
	case isHop(route), errors.Is(err, hbone.ErrNotSent), isChosen(route) && errors.Is(err, hbone.ErrImpatient):
		return found
	case isChosen(route):
		return min(found, elsewhere)
	default:
		return none
	}
}

// isHop reports whether the next hop is a waypoint.
func isHop(route l4.Route) bool {
	return route.Kind == l4.ServiceWaypoint || route.Kind == l4.WorkloadWaypoint
}

// isChosen reports whether the next hop is an endpoint that was drawn from those of a service.
func isChosen(route l4.Route) bool {
	return route.Kind == l4.Direct && route.Service != nil && route.Service.Mode != workload.LoadBalancing_PASSTHROUGH
}

// soundRemedy tells what would repeat nothing: what the application sent has not left by then, or the peer has dropped it, which it
// says by REFUSED_STREAM, GOAWAY or a status other than 200.
func soundRemedy(route l4.Route, err error) remedy {
	var status *hbone.StatusError
	switch {
	case errors.As(err, &status):
		// 503 is of a hop that can't do what it should: its application is away, its configuration is not whole. All else is a decision.
		if status.Status == 503 {
			return elsewhere
		}
		return none
	case isAlert(err):
		return none // the peer does not take our certificate
	case errors.Is(err, hbone.ErrNotSent), errors.Is(err, hbone.ErrUnanswered):
		return anywhere
	case route.HBONE && !errors.Is(err, hbone.ErrUnreachable):
		return none
	}
	switch flagOf(err) {
	case flagConnect, flagNetworkPolicy:
		return anywhere
	case flagTLS:
		if brokeOff(err) {
			return anywhere
		}
		return elsewhere // somebody else has the address by now
	default:
		return none
	}
}

// brokeOff tells a handshake that was cut from one that came to a bad end.
func brokeOff(err error) bool {
	return isTimeout(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// repeats bounds the attempts of one connection.
type repeats struct {
	until         time.Time
	count, others int      // attempts after the first, and those of them that only another endpoint could serve
	tried         []string // uids of endpoints
}

// take counts one more attempt, if there is one left.
func (r *repeats) take(route l4.Route, by remedy) bool {
	switch {
	case by == none, !time.Now().Before(r.until):
		return false
	case by == elsewhere:
		if r.others > 0 {
			return false
		}
		r.others++
	case !isHop(route) && r.count >= sureRepeats:
		return false
	}
	r.count++
	return true
}

// pause is how long to wait before an endpoint is tried once more.
func (r *repeats) pause() time.Duration {
	return min(firstPause<<min(r.count-1, 10), longestPause)
}

// patience is how long the next attempt may wait for a connection; 0 is as long as there is time.
func (r *repeats) patience(route l4.Route) time.Duration {
	var limit time.Duration
	switch {
	case isHop(route):
		limit = hopPatience
	case isChosen(route) && r.count == 0:
		limit = endpointPatience
	}
	if time.Now().Add(limit).After(r.until) {
		return 0
	}
	return limit
}

// know notes that an endpoint was tried in vain.
func (r *repeats) know(w *l4.Workload) {
	if w != nil && !slices.Contains(r.tried, w.UID) {
		r.tried = append(r.tried, w.UID)
	}
}

// fresh reports whether a route leads to an endpoint that has not been tried.
func (r *repeats) fresh(route l4.Route) bool {
	return route.Destination == nil || !slices.Contains(r.tried, route.Destination.UID)
}
