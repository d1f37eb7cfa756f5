package route

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// hostAttempts is how often another host is looked for when the one picked was tried before.
const hostAttempts = 5

// DefaultRetry is what every route has unless it says otherwise.
func DefaultRetry() *Retry {
	return &Retry{
		Attempts:   2,
		On:         []string{"connect-failure", "refused-stream", "unavailable", "cancelled", statusCodes},
		Codes:      []uint32{503},
		OtherHosts: true,
	}
}

// statusCodes is the condition that makes Codes count.
const statusCodes = "retriable-status-codes"

func (r *Retry) envoy(hashed bool) *routev3.RetryPolicy {
	if r == nil || r.Attempts == 0 {
		return nil
	}
	on := r.On
	if len(r.Codes) > 0 && !slices.Contains(on, statusCodes) {
		on = append(slices.Clone(on), statusCodes)
	}
	out := &routev3.RetryPolicy{
		RetryOn:              strings.Join(on, ","),
		NumRetries:           wrapperspb.UInt32(r.Attempts),
		RetriableStatusCodes: r.Codes,
	}
	if r.PerTryTimeout > 0 {
		out.PerTryTimeout = durationpb.New(r.PerTryTimeout)
	}
	if r.Backoff > 0 {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.Backoff)}
		if r.BackoffMax >= r.Backoff {
			out.RetryBackOff.MaxInterval = durationpb.New(r.BackoffMax)
		}
	}
	// A hash picks the same host again; refusing that host would only spend the attempts to pick.
	if r.OtherHosts && !hashed {
		out.HostSelectionRetryMaxAttempts = hostAttempts
		out.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: mustAny(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}}
	}
	if r.OtherLocalities {
		out.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: mustAny(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2}),
			},
		}
	}
	return out
}

// fraction is a share that a runtime key could change, and nobody does.
func (s Share) fraction() *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: s.percent()}
}
