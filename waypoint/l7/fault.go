package l7

import (
	"time"

	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// fault is what is injected, and how often.
type fault struct {
	delay         time.Duration
	delayChance   fraction
	abort         *Reply
	abortChance   fraction
	headers       []match.Header
	upstreamCheck string
}

func compileFault(p *faultv3.HTTPFault) (*fault, error) {
	f := &fault{upstreamCheck: p.GetUpstreamCluster()}
	var err error
	if f.headers, err = match.CompileHeaders(p.GetHeaders(), "headers"); err != nil {
		return nil, err
	}
	if d := p.GetDelay(); d != nil {
		if _, ok := d.GetFaultDelaySecifier().(*commonfaultv3.FaultDelay_FixedDelay); !ok {
			return nil, strict.Errorf("delay.fixed_delay", "is required")
		}
		f.delay, f.delayChance = d.GetFixedDelay().AsDuration(), fractionOf(d.GetPercentage())
	}
	a := p.GetAbort()
	if a == nil {
		return f, nil
	}
	f.abortChance = fractionOf(a.GetPercentage())
	f.abort = &Reply{Body: "fault filter abort", GRPCStatus: -1, Details: "fault_filter_abort", Flags: FlagFaultInjected}
	switch k := a.GetErrorType().(type) {
	case *faultv3.FaultAbort_HttpStatus:
		if k.HttpStatus < 200 || k.HttpStatus > 599 {
			return nil, strict.Errorf("abort.http_status", "%d is no status", k.HttpStatus)
		}
		f.abort.Status = int(k.HttpStatus)
	case *faultv3.FaultAbort_GrpcStatus:
		f.abort.GRPCStatus, f.abort.Status = int(k.GrpcStatus), 200 // for a request that is not gRPC, too
	default:
		return nil, strict.Errorf("abort.error_type", "is required")
	}
	return f, nil
}

// decide draws. The delay comes before the abort.
func (f *fault) decide(d *Decision, r *Request, rnd Rand) *Reply {
	if f.upstreamCheck != "" && f.upstreamCheck != d.ClusterName || !match.MatchHeaders(f.headers, r.Head) {
		return nil
	}
	if f.delay > 0 && f.delayChance.numerator > 0 && f.delayChance.hit(rnd.Uint64()) {
		d.Delay = f.delay
		d.Flags |= FlagDelayInjected
	}
	if f.abort != nil && f.abortChance.numerator > 0 && f.abortChance.hit(rnd.Uint64()) {
		return f.abort
	}
	return nil
}
