package route

import (
	"strconv"
	"strings"
	"time"

	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Names of the filters that routes configure; a listener that uses these routes has both.
const (
	FaultFilter = "envoy.filters.http.fault"
	CORSFilter  = "envoy.filters.http.cors"
)

// mustAny packs a message of our own making: that cannot fail unless a string in it is no UTF-8, which Route.envoy has ruled out.
func mustAny(m proto.Message) *anypb.Any {
	out := &anypb.Any{}
	// The bytes go to the wire and are compared there, so they have to be the same each time.
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil
	}
	return out
}

func (s Share) percent() *typev3.FractionalPercent {
	if s%10_000 == 0 {
		return &typev3.FractionalPercent{Numerator: uint32(s / 10_000)}
	}
	return &typev3.FractionalPercent{Numerator: uint32(s), Denominator: typev3.FractionalPercent_MILLION}
}

func (f *Fault) envoy() *faultv3.HTTPFault {
	out := &faultv3.HTTPFault{}
	if f.Delay > 0 {
		out.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(f.Delay)},
			Percentage:         f.DelayShare.percent(),
		}
	}
	switch {
	case f.GRPC != nil:
		out.Abort = &faultv3.FaultAbort{
			ErrorType: &faultv3.FaultAbort_GrpcStatus{GrpcStatus: *f.GRPC}, Percentage: f.AbortShare.percent(),
		}
	case f.Status != 0:
		out.Abort = &faultv3.FaultAbort{
			ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: f.Status}, Percentage: f.AbortShare.percent(),
		}
	}
	return out
}

func (c *CORS) envoy() *corsv3.CorsPolicy {
	out := &corsv3.CorsPolicy{
		AllowMethods:                 strings.Join(c.AllowMethods, ","),
		AllowHeaders:                 strings.Join(c.AllowHeaders, ","),
		ExposeHeaders:                strings.Join(c.ExposeHeaders, ","),
		FilterEnabled:                Everything.fraction(),
		ForwardNotMatchingPreflights: wrapperspb.Bool(c.ForwardUnmatched),
	}
	for _, origin := range c.Origins {
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, origin.envoy())
	}
	if c.MaxAge != nil {
		out.MaxAge = strconv.FormatInt(int64(*c.MaxAge/time.Second), 10)
	}
	if c.AllowCredentials != nil {
		out.AllowCredentials = wrapperspb.Bool(*c.AllowCredentials)
	}
	return out
}
