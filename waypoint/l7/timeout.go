package l7

import (
	"strconv"
	"time"
)

// timeouts computes how long the request may take: of the route, or of what the client says in headers that it may set, which are
// taken out.
func (d *Decision) timeouts(r *Request, f *forward) {
	h := &r.Head.Header
	d.Timeout, d.PerTry, d.PerTryIdle = f.timeout, f.retry.PerTry, f.retry.PerTryIdle
	switch {
	case f.maxStream != nil:
		// The stream's duration replaces the response timeout.
		d.MaxDuration, d.Timeout = f.streamDuration(r, d.manager.MaxStreamDuration), 0
	case r.GRPC && f.maxGRPC != nil:
		t, _ := grpcTimeout(h.Value("grpc-timeout"))
		if f.grpcOffset < t {
			t -= f.grpcOffset
		}
		if limit := *f.maxGRPC; limit != 0 && (t == 0 || t > limit) {
			t = limit
		}
		d.Timeout = t
	}
	if f.maxStream == nil {
		d.MaxDuration = d.manager.MaxStreamDuration
	}
	headerTimeout := false
	if d.manager.opts.respectExpected {
		_, headerTimeout = h.Get("x-envoy-expected-rq-timeout-ms")
	}
	if t, ok := millis(h.Value("x-envoy-expected-rq-timeout-ms")); ok && headerTimeout {
		d.Timeout = t
	} else {
		if t, ok := millis(h.Value("x-envoy-upstream-rq-timeout-ms")); ok {
			d.Timeout = t
		}
		h.Del("x-envoy-upstream-rq-timeout-ms")
	}
	if v, has := h.Get("x-envoy-upstream-rq-per-try-timeout-ms"); has {
		if t, ok := millis(v); ok {
			d.PerTry = t
		}
		h.Del("x-envoy-upstream-rq-per-try-timeout-ms")
	}
	if d.PerTry >= d.Timeout && d.Timeout != 0 {
		d.PerTry = 0
	}
	d.tellsTimeout = !d.manager.opts.suppressEnvoy && !headerTimeout
	d.tellsGRPC = r.GRPC && f.maxStream == nil && f.maxGRPC != nil
	d.TellTimeout(r, 0)
}

// TellTimeout tells the next upstream how long it has, when the request has been whole for so long: an attempt's time, and not more than
// is left of all.
func (d *Decision) TellTimeout(r *Request, elapsed time.Duration) {
	expected := d.PerTry
	if expected == 0 {
		expected = d.Timeout
	}
	if expected <= 0 {
		return
	}
	if d.Timeout > 0 {
		expected = max(min(expected, d.Timeout-elapsed.Truncate(time.Millisecond)), time.Millisecond) // 0 would be no timeout
	}
	if d.tellsTimeout {
		b := strconv.AppendInt(r.Scratch.Bytes(), expected.Milliseconds(), 10)
		r.Head.Header.Set("x-envoy-expected-rq-timeout-ms", r.Scratch.Keep(b))
	}
	if d.tellsGRPC {
		setGRPCTimeout(r, expected)
	}
}

// streamDuration is max_stream_duration for the request: by grpc-timeout when the route allows it. What upstream is told follows.
func (f *forward) streamDuration(r *Request, limit time.Duration) time.Duration {
	m := f.maxStream
	asked, ok := grpcTimeout(r.Head.Header.Value("grpc-timeout"))
	switch {
	case ok && m.grpcMax != nil:
		limit = asked
		if *m.grpcMax != 0 && limit > *m.grpcMax {
			limit = *m.grpcMax
		}
		if m.grpcOffset < limit {
			limit -= m.grpcOffset
		}
	case m.limit >= 0:
		limit = m.limit
	}
	switch {
	case !ok:
	case limit == 0:
		r.Head.Header.Del("grpc-timeout")
	default:
		setGRPCTimeout(r, limit)
	}
	return limit
}

// setGRPCTimeout writes at most eight digits and a unit.
func setGRPCTimeout(r *Request, t time.Duration) {
	n, unit := t.Milliseconds(), byte('m')
	for _, u := range []struct {
		unit byte
		per  int64
	}{{'S', 1000}, {'M', 60}, {'H', 60}} {
		if n < 100_000_000 {
			break
		}
		n, unit = n/u.per, u.unit
	}
	b := strconv.AppendInt(r.Scratch.Bytes(), min(n, 99_999_999), 10)
	r.Head.Header.Set("grpc-timeout", r.Scratch.Keep(append(b, unit)))
}

func millis(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 40)
	return time.Duration(n) * time.Millisecond, err == nil //nolint:gosec // 40 bits
}

// grpcTimeout parses grpc-timeout: up to eight digits and a unit.
func grpcTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	unit := time.Duration(0)
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		// Envoy's timers have milliseconds: it rounds up.
		return (time.Duration(n)*time.Microsecond + time.Millisecond - 1).Truncate(time.Millisecond), true //nolint:gosec // eight digits
	case 'n':
		return (time.Duration(n) + time.Millisecond - 1).Truncate(time.Millisecond), true //nolint:gosec // eight digits
	default:
		return 0, false
	}
	return time.Duration(n) * unit, true //nolint:gosec // eight digits
}
