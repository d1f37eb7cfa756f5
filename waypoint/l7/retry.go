package l7

import (
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// RetryOn is a set of conditions for a retry.
type RetryOn uint32

// The conditions.
const (
	RetryOn5xx RetryOn = 1 << iota
	RetryOnGatewayError
	RetryOnReset
	RetryOnResetBeforeRequest
	RetryOnConnectFailure
	RetryOnEnvoyRateLimited
	RetryOnRetriable4xx
	RetryOnRefusedStream
	RetryOnRetriableStatusCodes
	RetryOnRetriableHeaders
	RetryOnHTTP3ConnectFailure
	RetryOnGRPCCancelled
	RetryOnGRPCDeadlineExceeded
	RetryOnGRPCInternal
	RetryOnGRPCResourceExhausted
	RetryOnGRPCUnavailable
)

// Failure is how an attempt ended without a response.
type Failure uint8

// The failures.
const (
	FailureConnect       Failure = iota // no connection (also a connect timeout)
	FailureRefused                      // REFUSED_STREAM, or a GOAWAY before it: surely not processed
	FailureResetUnsent                  // the connection ended before the request was sent
	FailureReset                        // the connection or stream ended before the response
	FailurePerTryTimeout                // the attempt took too long
	FailureOverflow                     // a circuit breaker: never retried
)

// Retry is a compiled retry policy.
type Retry struct {
	On         RetryOn
	NumRetries uint32
	PerTry     time.Duration // 0: the route's timeout
	PerTryIdle time.Duration
	// Statuses are the retriable status codes.
	Statuses []uint32
	// HostAttempts is how often another host is drawn when PreviousHosts rejects one.
	HostAttempts uint32
	// PreviousHosts is whether hosts that were tried are avoided; OmitCanary likewise for canaries.
	PreviousHosts bool
	// PreviousPriorities is how many attempts share a priority load (0: not configured).
	PreviousPriorities uint32
	Base, Max          time.Duration
	headers            []headerMatcher
	requestHeaders     []headerMatcher
}

// OnFailure is whether an attempt that failed so is made again.
func (d *Decision) OnFailure(f Failure) bool { return d.Retry != nil && d.retryFailure(f) }

// OnResponse is whether an attempt that was answered so is made again.
func (d *Decision) OnResponse(head *httpmsg.Head) bool {
	return d.Retry != nil && d.retryResponse(head)
}
