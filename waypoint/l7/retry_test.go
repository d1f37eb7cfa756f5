package l7

import (
	"testing"
	"time"
)

func TestRetryConditions(t *testing.T) {
	w := newWorld(t, manager("", "", vhost(`
		{'match': {'prefix': '/istio'}, 'route': {'cluster': 'up', 'retry_policy': {'retry_on': 'connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes',
			'num_retries': 2, 'retriable_status_codes': [503], 'host_selection_retry_max_attempts': '5',
			'retry_host_predicate': [{'name': 'p', 'typed_config': {'@type': '`+typeURL+`extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate'}}]}}},
		{'match': {'prefix': '/5xx'}, 'route': {'cluster': 'up', 'retry_policy': {'retry_on': '5xx', 'retry_back_off': {'base_interval': '0.1s', 'max_interval': '0.3s'}}}},
		{'match': {'prefix': '/gw'}, 'route': {'cluster': 'up', 'retry_policy': {'retry_on': 'gateway-error,retriable-4xx,retriable-headers', 'retriable_headers': [{'name': 'x-again', 'present_match': true}]}}},
		{'match': {'prefix': '/reset'}, 'route': {'cluster': 'up', 'retry_policy': {'retry_on': 'reset-before-request'}}},
		{'match': {'prefix': '/only'}, 'route': {'cluster': 'up', 'retry_policy': {'retry_on': '5xx', 'retriable_request_headers': [{'name': 'x-idempotent', 'present_match': true}]}}},
		{'match': {'prefix': '/'}, 'route': {'cluster': 'up'}}`)))
	for _, c := range []struct {
		path     string
		status   int
		header   string
		response bool
		failures map[Failure]bool
	}{
		{"/istio", 503, "", true, map[Failure]bool{FailureConnect: true, FailureConnectTimeout: true, FailureRefused: true, FailureReset: false, FailurePerTryTimeout: false, FailureOverflow: false}},
		{"/istio", 500, "", false, nil},
		{"/istio", 200, "grpc-status: 14", true, nil},
		{"/istio", 200, "grpc-status: 13", false, nil},
		{"/5xx", 500, "", true, map[Failure]bool{FailureConnect: true, FailureReset: true, FailurePerTryTimeout: true, FailureOverflow: false}},
		{"/5xx", 404, "", false, nil},
		{"/5xx", 503, "x-envoy-ratelimited: true", false, nil},
		{"/gw", 500, "", false, nil},
		{"/gw", 502, "", true, nil},
		{"/gw", 409, "", true, nil},
		{"/gw", 200, "x-again: 1", true, nil},
		{"/reset", 503, "", false, map[Failure]bool{FailureResetUnsent: true, FailureConnect: true, FailureReset: false}},
		{"/only", 503, "", false, nil},
		{"/x", 503, "", false, map[Failure]bool{FailureConnect: false}},
	} {
		d := w.decide(t, request("GET "+c.path))
		var extra []string
		if c.header != "" {
			extra = append(extra, c.header)
		}
		resp := request("", extra...)
		resp.Status = c.status
		if got := d.OnResponse(resp); got != c.response {
			t.Errorf("%s %d %s: %v", c.path, c.status, c.header, got)
		}
		for f, want := range c.failures {
			if got := d.OnFailure(f); got != want {
				t.Errorf("%s: failure %d: %v", c.path, f, got)
			}
		}
	}
	d := w.decide(t, request("GET /istio"))
	if d.NumRetries != 2 || !d.Retry.PreviousHosts || d.Retry.HostAttempts != 5 {
		t.Errorf("%+v", d.Retry)
	}
	d = w.decide(t, request("GET /5xx"))
	for n, limit := range map[uint32]time.Duration{1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 3: 300 * time.Millisecond, 9: 300 * time.Millisecond} {
		for range 100 {
			if b := d.Retry.BackOff(n, w.rnd); b < 0 || b >= limit {
				t.Errorf("back-off %d: %v", n, b)
			}
		}
	}
}

// The words of Envoy 1.40, seen at a closed port, at a host that hangs up and at one that talks rubbish.
func TestReplyReset(t *testing.T) {
	for _, c := range []struct {
		f                    Failure
		retried              bool
		status               int
		body, flags, details string
	}{
		{FailureConnect, false, 503, "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure", "UF", "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"},
		{FailureTerminated, true, 503, "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: connection termination", "UC", "upstream_reset_before_response_started{connection_termination|delayed_connect_error:_Connection_refused}"},
		{FailureProtocol, false, 502, "upstream connect error or disconnect/reset before headers. reset reason: protocol error", "UPE", "upstream_reset_before_response_started{protocol_error|delayed_connect_error:_Connection_refused}"},
		{FailureOverflow, false, 503, "upstream connect error or disconnect/reset before headers. reset reason: overflow", "UO", "upstream_reset_before_response_started{overflow}"},
	} {
		r := ReplyReset(c.f, "delayed connect error: Connection refused", c.retried)
		if r.Status != c.status || r.Body != c.body || r.Flags.String() != c.flags || r.Details != c.details {
			t.Errorf("%+v", r)
		}
	}
}
