package l7

import (
	"maps"
	"slices"
	"strconv"
	"time"

	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/ratelimit"
)

// limiter is a rate limit, and the answer to what it refuses.
type limiter struct {
	*ratelimit.Filter
	reply Reply
}

func compileLimiter(p *localv3.LocalRateLimit) (*limiter, error) {
	f, err := ratelimit.Compile(p)
	if err != nil {
		return nil, err
	}
	return &limiter{f, Reply{
		Status: f.Status, Body: "local_rate_limited", GRPCStatus: f.GRPCStatus, Details: "local_rate_limited", Flags: FlagRateLimited,
	}}, nil
}

// LimitStep is a policy that limits a request.
type LimitStep struct {
	// Enforced is whether requests over its limits are refused.
	Enforced bool
	Concerns []ratelimit.Concern
}

// limit takes the tokens of a request.
func (d *Decision) limit(f *filter, o *override, r *Request, rnd Rand) *Reply {
	l := f.limit
	if o != nil && o.limit != nil {
		l = o.limit
	}
	asked := ratelimit.Asked{Info: &r.Info, Random: rnd}
	if d.Route != nil {
		asked.Route.Metadata = d.Route.Metadata
	}
	if d.trace != nil { // who only explains takes nothing
		if found := l.Concerns(&asked); len(found) > 0 {
			*d.trace = append(*d.trace, Step{Filter: f.name, Limit: &LimitStep{l.Enforces(), found}})
		}
		return nil
	}
	v := l.Check(&asked)
	if v.Shown != nil {
		d.resp.shown = append(d.resp.shown, v.Shown)
	}
	if !v.Refused {
		if v.Over {
			l.Request.Apply(&r.Head.Header, &r.Info)
		}
		return nil
	}
	d.resp.limited, d.resp.retryAfter = l, max(ratelimit.Seconds(v.Wait), 1)
	return &l.reply
}

// limitReply is what a refusal says besides.
func (d *Decision) limitReply(r *Request, h *httpmsg.Header) {
	l := d.resp.limited
	l.Response.Apply(h, &r.Info)
	if _, ok := h.Get("retry-after"); !ok && l.RetryAfter && l.Status == 429 {
		h.Add("retry-after", r.Scratch.Keep(strconv.AppendInt(r.Scratch.Bytes(), d.resp.retryAfter, 10)))
	}
}

// tellLimit says how much is left of a limit.
func tellLimit(r *Request, h *httpmsg.Header, s *ratelimit.Shown, now time.Time) {
	limit, remaining, reset := s.Left(now)
	for _, f := range [...]struct {
		key   string
		value uint64
	}{{"x-ratelimit-limit", limit}, {"x-ratelimit-remaining", remaining}, {"x-ratelimit-reset", reset}} {
		h.Add(f.key, r.Scratch.Keep(strconv.AppendUint(r.Scratch.Bytes(), f.value, 10)))
	}
}

// adopted makes the rate limits of new listeners go on with what those that they take the place of have counted. Nobody uses the new ones
// yet.
func adopted(old, change map[string]*Listener) map[string]*Listener {
	for name, next := range change {
		if before := old[name]; before != nil && next != nil && before != next {
			next.adopt(before)
		}
	}
	return change
}

func (l *Listener) adopt(old *Listener) {
	var before map[string]*limiter // made when the first is needed
	l.limiters(func(key string, to *limiter) {
		if before == nil {
			before = map[string]*limiter{}
			old.limiters(func(key string, from *limiter) { before[key] = from })
		}
		if from := before[key]; from != nil {
			to.Adopt(from.Filter)
			delete(before, key) // no two share it
		}
	})
}

// limiters visits the rate limits, by keys that say where they are.
func (l *Listener) limiters(visit func(key string, one *limiter)) {
	for _, ch := range append(slices.Clip(l.Chains), l.Default) {
		if ch == nil || ch.HTTP == nil {
			continue
		}
		for i := range ch.HTTP.filters {
			if f := &ch.HTTP.filters[i]; f.limit != nil {
				visit(ch.Name+"\x00"+ch.HTTP.RouteConfig+"\x00"+f.name, f.limit)
			}
		}
	}
}

// LimitStats are the counters of rate limits, by their prefixes.
type LimitStats struct {
	StatPrefix                         string
	Enabled, OK, RateLimited, Enforced uint64
}

// LimitStats are those of all listeners, sorted; limits of the same prefix are counted together.
func (c *Config) LimitStats() []LimitStats {
	all := map[string]*LimitStats{}
	for _, l := range c.Listeners {
		l.limiters(func(_ string, one *limiter) {
			s := all[one.StatPrefix]
			if s == nil {
				s = &LimitStats{StatPrefix: one.StatPrefix}
				all[one.StatPrefix] = s
			}
			n := one.Stats()
			s.Enabled += n.Enabled.Load()
			s.OK += n.OK.Load()
			s.RateLimited += n.RateLimited.Load()
			s.Enforced += n.Enforced.Load()
		})
	}
	var out []LimitStats
	for _, prefix := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[prefix])
	}
	return out
}
