package l7

import (
	"slices"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	omitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	priorityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
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
	FailureConnect        Failure = iota // no connection
	FailureConnectTimeout                // none in time
	FailureRefused                       // REFUSED_STREAM, or a GOAWAY before it: surely not processed
	FailureResetUnsent                   // the connection ended before the request was sent
	FailureReset                         // the stream was reset before the response
	FailureTerminated                    // the connection ended before the response
	FailureProtocol                      // the peer broke the rules
	FailurePerTryTimeout                 // the attempt took too long
	FailureOverflow                      // a circuit breaker: never retried
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
	headers            []match.Header
	requestHeaders     []match.Header
}

// parseRetryOn reads the names of conditions. Names that are not known are passed over, as Envoy does.
func parseRetryOn(s string) RetryOn {
	var on RetryOn
	for rest := s; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, ",")
		on |= retryCondition(strings.TrimSpace(name))
	}
	return on
}

func retryCondition(name string) RetryOn {
	switch name {
	case "5xx":
		return RetryOn5xx
	case "gateway-error":
		return RetryOnGatewayError
	case "reset":
		return RetryOnReset
	case "reset-before-request":
		return RetryOnResetBeforeRequest
	case "connect-failure":
		return RetryOnConnectFailure
	case "envoy-ratelimited":
		return RetryOnEnvoyRateLimited
	case "retriable-4xx":
		return RetryOnRetriable4xx
	case "refused-stream":
		return RetryOnRefusedStream
	case "retriable-status-codes":
		return RetryOnRetriableStatusCodes
	case "retriable-headers":
		return RetryOnRetriableHeaders
	case "http3-post-connect-failure":
		return RetryOnHTTP3ConnectFailure
	case "cancelled":
		return RetryOnGRPCCancelled
	case "deadline-exceeded":
		return RetryOnGRPCDeadlineExceeded
	case "internal":
		return RetryOnGRPCInternal
	case "resource-exhausted":
		return RetryOnGRPCResourceExhausted
	case "unavailable":
		return RetryOnGRPCUnavailable
	}
	return 0
}

func compileRetry(p *routev3.RetryPolicy) (*Retry, error) {
	r := &Retry{
		On: parseRetryOn(p.GetRetryOn()), NumRetries: uint32Or(p.GetNumRetries(), 1), PerTry: duration(p.GetPerTryTimeout(), 0),
		PerTryIdle: duration(p.GetPerTryIdleTimeout(), 0), Statuses: slices.Clone(p.GetRetriableStatusCodes()),
		HostAttempts: uint32(max(1, p.GetHostSelectionRetryMaxAttempts())), //nolint:gosec // a small number
		Base:         25 * time.Millisecond,
	}
	if b := p.GetRetryBackOff(); b != nil {
		r.Base = max(time.Millisecond, duration(b.GetBaseInterval(), r.Base))
		if r.Max = duration(b.GetMaxInterval(), 10*r.Base); r.Max < r.Base {
			return nil, strict.Errorf("retry_back_off.max_interval", "must not be less than base_interval")
		}
	} else {
		r.Max = 10 * r.Base
	}
	for i, h := range p.GetRetryHostPredicate() {
		m, err := strict.Unpack(h.GetTypedConfig())
		if err != nil {
			return nil, strict.AtIndex(strict.At(err, "typed_config"), "retry_host_predicate", i)
		}
		switch m.(type) {
		case *previoushostsv3.PreviousHostsPredicate:
			r.PreviousHosts = true
		case *omitv3.OmitCanaryHostsPredicate:
		default:
			return nil, strict.AtIndex(strict.Errorf("typed_config", "is not supported here"), "retry_host_predicate", i)
		}
	}
	if rp := p.GetRetryPriority(); rp != nil {
		m, err := unpack[*priorityv3.PreviousPrioritiesConfig](rp.GetTypedConfig())
		if err != nil {
			return nil, strict.At(err, "retry_priority.typed_config")
		}
		r.PreviousPriorities = uint32(max(0, m.GetUpdateFrequency())) //nolint:gosec // a small number
	}
	var err error
	if r.headers, err = match.CompileHeaders(p.GetRetriableHeaders(), "retriable_headers"); err != nil {
		return nil, err
	}
	r.requestHeaders, err = match.CompileHeaders(p.GetRetriableRequestHeaders(), "retriable_request_headers")
	return r, err
}

// retry reads the policy and what the request says about it, and takes that out of the request.
func (d *Decision) retry(r *Request, p *Retry) {
	h := &r.Head.Header
	d.Retry, d.RetryOn, d.NumRetries = p, p.On, p.NumRetries
	on, ok1 := h.Get("x-envoy-retry-on")
	grpc, ok2 := h.Get("x-envoy-retry-grpc-on")
	if ok1 || ok2 {
		d.RetryOn |= parseRetryOn(on) | parseRetryOn(grpc)
		if n, err := strconv.ParseUint(h.Value("x-envoy-max-retries"), 10, 32); err == nil {
			d.NumRetries = uint32(n)
		}
	}
	if len(p.requestHeaders) > 0 && !slices.ContainsFunc(p.requestHeaders, func(m match.Header) bool { return m.Match(r.Head) }) {
		d.RetryOn = 0
	}
	delAll(h, retryRequestHeader)
	if d.RetryOn == 0 {
		d.Retry = nil
	}
}

func retryRequestHeader(key string) bool {
	switch key {
	case "x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-hedge-on-per-try-timeout",
		"x-envoy-retriable-header-names", "x-envoy-retriable-status-codes", "x-envoy-upstream-rq-per-try-timeout-ms":
		return true
	}
	return false
}

// OnFailure is whether an attempt that failed so is made again.
func (d *Decision) OnFailure(f Failure) bool {
	if d.Retry == nil || f == FailureOverflow {
		return false
	}
	on := d.RetryOn
	if on&(RetryOnReset|RetryOn5xx|RetryOnGatewayError) != 0 {
		return true
	}
	switch f {
	case FailureRefused:
		return on&RetryOnRefusedStream != 0
	case FailureConnect, FailureConnectTimeout:
		return on&(RetryOnConnectFailure|RetryOnResetBeforeRequest) != 0
	case FailureResetUnsent:
		return on&RetryOnResetBeforeRequest != 0
	}
	return false
}

// OnResponse is whether an attempt that was answered so is made again.
func (d *Decision) OnResponse(head *httpmsg.Head) bool {
	if d.Retry == nil {
		return false
	}
	on, s := d.RetryOn, head.Status
	if _, limited := head.Header.Get("x-envoy-ratelimited"); limited {
		return on&RetryOnEnvoyRateLimited != 0
	}
	switch {
	case on&RetryOn5xx != 0 && s >= 500 && s < 600,
		on&RetryOnGatewayError != 0 && s >= 502 && s <= 504,
		on&RetryOnRetriable4xx != 0 && s == 409,
		on&RetryOnRetriableStatusCodes != 0 && slices.Contains(d.Retry.Statuses, uint32(s)): //nolint:gosec // a status
		return true
	case on&RetryOnRetriableHeaders != 0:
		for i := range d.Retry.headers {
			if d.Retry.headers[i].Match(head) {
				return true
			}
		}
	}
	if on&grpcConditions == 0 {
		return false
	}
	switch head.Header.Value("grpc-status") {
	case "1":
		return on&RetryOnGRPCCancelled != 0
	case "4":
		return on&RetryOnGRPCDeadlineExceeded != 0
	case "8":
		return on&RetryOnGRPCResourceExhausted != 0
	case "13":
		return on&RetryOnGRPCInternal != 0
	case "14":
		return on&RetryOnGRPCUnavailable != 0
	}
	return false
}

const grpcConditions = RetryOnGRPCCancelled | RetryOnGRPCDeadlineExceeded | RetryOnGRPCInternal | RetryOnGRPCResourceExhausted | RetryOnGRPCUnavailable

// BackOff is how long to wait before the n-th retry (from 1): a random part of an interval that doubles, up to Max.
func (r *Retry) BackOff(n uint32, rnd Rand) time.Duration {
	span := r.Base
	for i := uint32(1); i < n && span < r.Max; i++ {
		span *= 2
	}
	span = min(span, r.Max)
	if span < time.Millisecond {
		return 0
	}
	return time.Duration(rnd.Uint64() % uint64(span)) //nolint:gosec // less than span
}
