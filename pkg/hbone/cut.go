package hbone

import (
	"errors"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
)

// ErrStalled means that the peer took nothing of what was written for a long time. An application that is slow does not lead to that:
// its streams have windows, and what is sent within them is read at the other end in any case.
var ErrStalled = errors.New("hbone: peer does not read")

// ErrOverBudget means that a stream was cut because its workload, or the node, has no memory left for data that its receiver does not
// take. See [Budget].
var ErrOverBudget = errors.New("hbone: no memory left for what the receiver does not take")

// CutReason says why a connection that ended with err was cut from this side: which rule or bound the peer broke, in one of a few words
// that may label a metric. It is "" for an end that was nobody's fault.
func CutReason(err error) string {
	var broken h2.ConnError
	switch {
	case errors.As(err, &broken):
		if broken.Code == h2.CompressionError {
			return "broken header compression" // its own words tell of the peer's bytes
		}
		return broken.Reason
	case errors.Is(err, ErrStalled):
		return "peer does not read"
	case errors.Is(err, ErrPingTimeout):
		return "peer does not answer PING"
	case errors.Is(err, errPrefaceTimeout):
		return "no client preface in time"
	}
	return ""
}
