package l7

import "github.com/isthmus-mesh/isthmus/pkg/httpmsg"

// Replies to what only the one who forwards can find out. They are shared and must not be changed.
//
//nolint:gochecknoglobals // constants
var (
	ReplyNoHealthyUpstream = &Reply{Status: 503, Body: "no healthy upstream", GRPCStatus: -1, Details: "no_healthy_upstream", Flags: FlagNoHealthyUpstream}
	ReplyUpstreamTimeout   = &Reply{Status: 504, Body: "upstream request timeout", GRPCStatus: -1, Details: "response_timeout", Flags: FlagUpstreamRequestTimeout}
	ReplyPerTryTimeout     = &Reply{Status: 504, Body: "upstream request timeout", GRPCStatus: -1, Details: "upstream_per_try_timeout", Flags: FlagUpstreamRequestTimeout}
	ReplyPerTryIdleTimeout = &Reply{Status: 504, Body: "upstream request timeout", GRPCStatus: -1, Details: "upstream_per_try_idle_timeout", Flags: FlagUpstreamRequestTimeout}
	// Of the timeouts of a stream the first is for a request that was not complete, the second for one that was.
	ReplyStreamIdleTimeout         = &Reply{Status: 408, Body: "stream timeout", GRPCStatus: -1, Details: "stream_idle_timeout", Flags: FlagStreamIdleTimeout}
	ReplyStreamIdleTimeoutComplete = &Reply{Status: 504, Body: "stream timeout", GRPCStatus: -1, Details: "stream_idle_timeout", Flags: FlagStreamIdleTimeout}
	ReplyRequestTimeout            = &Reply{Status: 408, Body: "request timeout", GRPCStatus: -1, Details: "request_overall_timeout"}
	ReplyHeaderTimeout             = &Reply{Status: 408, Body: "request header timeout", GRPCStatus: -1, Details: "request_header_timeout"}
	ReplyMaxDuration               = &Reply{Status: 408, Body: "downstream duration timeout", GRPCStatus: -1, Details: "max_duration_timeout", Flags: FlagDurationTimeout}
	ReplyMaxDurationComplete       = &Reply{Status: 504, Body: "downstream duration timeout", GRPCStatus: -1, Details: "max_duration_timeout", Flags: FlagDurationTimeout}
	ReplyOverflow                  = &Reply{
		Status: 503, Body: resetBody + "reset reason: overflow", GRPCStatus: -1, Details: "upstream_reset_before_response_started{overflow}",
		Header: []httpmsg.Field{{Key: "x-envoy-overloaded", Value: "true"}}, Flags: FlagUpstreamOverflow,
	}
)

const resetBody = "upstream connect error or disconnect/reset before headers. "

// ReplyReset is the answer when upstream failed and nothing is retried any more. transport is the transport failure reason ("" is
// none), which is for the log only; retried is whether an attempt was repeated.
func ReplyReset(f Failure, transport string, retried bool) *Reply {
	r := &Reply{Status: 503, GRPCStatus: -1}
	reason := ""
	switch f {
	case FailureConnect:
		reason, r.Flags = "remote connection failure", FlagUpstreamConnectionFailure
	case FailureConnectTimeout:
		reason, r.Flags = "connection timeout", FlagUpstreamConnectionFailure
	case FailureRefused:
		reason, r.Flags = "remote refused stream reset", FlagUpstreamRemoteReset
	case FailureReset:
		reason, r.Flags = "remote reset", FlagUpstreamRemoteReset
	case FailureProtocol:
		reason, r.Flags, r.Status = "protocol error", FlagUpstreamProtocolError, 502
	case FailurePerTryTimeout:
		return ReplyPerTryTimeout
	case FailureOverflow:
		return ReplyOverflow
	default:
		reason, r.Flags = "connection termination", FlagUpstreamConnectionTermination
	}
	r.Body = resetBody
	if retried {
		r.Body += "retried and the latest "
	}
	r.Body += "reset reason: " + reason
	r.Details = "upstream_reset_before_response_started{" + underscores(reason)
	if transport != "" {
		r.Details += "|" + underscores(transport)
	}
	r.Details += "}"
	return r
}

func underscores(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == ' ' {
			b[i] = '_'
		}
	}
	return string(b)
}
