package ratelimit

import (
	"math"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Filter is a compiled LocalRateLimit.
type Filter struct {
	// StatPrefix names the counters.
	StatPrefix string
	// Status of a refusal; GRPCStatus is 8, or -1 for what Status is mapped to.
	Status, GRPCStatus int
	// RetryAfter is whether a refusal says when to come again.
	RetryAfter bool
	// Response is done to the head of a refusal, Request to that of what passes only because nothing is enforced.
	Response, Request *mutate.Headers

	enabled, enforced uint64 // of a million
	shown             bool   // x-ratelimit headers, of the default bucket
	sequences         []*sequence
	descriptors       []*descriptor
	always            bool // the default bucket is asked whatever else is found
	limit             int
	standard          *descriptor // the default bucket, without pairs; nil lets pass
	state             *state
}

// state is shared with the filter that takes the place of this one.
type state struct {
	stats Stats
	// start is what times are counted from: when the first request came.
	start atomic.Pointer[time.Time]
}

// Stats are Envoy's counters.
type Stats struct{ Enabled, OK, RateLimited, Enforced atomic.Uint64 }

// Enforces is whether requests over a limit are refused, at least a part of them.
func (f *Filter) Enforces() bool { return f.enforced > 0 }

// Stats are the counters of the filter.
func (f *Filter) Stats() *Stats { return &f.state.stats }

const (
	million     = 1_000_000
	defaultKeys = 20 // Envoy's
	// longKey is the length up to which a key costs no memory.
	longKey = 256
)

// Compile compiles a LocalRateLimit that strict.Check has seen.
func Compile(p *localv3.LocalRateLimit) (*Filter, error) {
	f := &Filter{
		StatPrefix: p.GetStatPrefix(), Status: int(p.GetStatus().GetCode()), GRPCStatus: -1, RetryAfter: p.GetEnableRetryAfterHeader(),
		enabled: fraction(p.GetFilterEnabled()), enforced: fraction(p.GetFilterEnforced()),
		shown:  p.GetEnableXRatelimitHeaders() == ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03,
		always: p.GetAlwaysConsumeDefaultTokenBucket() == nil || p.GetAlwaysConsumeDefaultTokenBucket().GetValue(),
		limit:  defaultKeys, state: &state{},
	}
	if f.Status < 400 {
		f.Status = 429
	}
	if p.GetRateLimitedAsResourceExhausted() {
		f.GRPCStatus = 8
	}
	if n := p.GetMaxDynamicDescriptors(); n != nil {
		if n.GetValue() == 0 || n.GetValue() > math.MaxInt32 {
			return nil, strict.Errorf("max_dynamic_descriptors", "%d is not at least 1", n.GetValue())
		}
		f.limit = int(n.GetValue())
	}
	var err error
	if f.Response, err = mutate.CompileHeaders("response", p.GetResponseHeadersToAdd(), nil); err != nil {
		return nil, err
	}
	if f.Request, err = mutate.CompileHeaders("request", p.GetRequestHeadersToAddWhenNotEnforced(), nil); err != nil {
		return nil, err
	}
	if b := p.GetTokenBucket(); b != nil {
		f.standard = &descriptor{}
		if f.standard.rate, err = compileBucket(b); err != nil {
			return nil, strict.At(err, "token_bucket")
		}
	}
	if err := f.compileLimits(p); err != nil {
		return nil, err
	}
	f.start()
	return f, nil
}

func (f *Filter) compileLimits(p *localv3.LocalRateLimit) error {
	for i, d := range p.GetDescriptors() {
		one, err := compileDescriptor(d)
		if err != nil {
			return strict.AtIndex(err, "descriptors", i)
		}
		f.descriptors = append(f.descriptors, one)
	}
	if i := duplicate(f.descriptors); i >= 0 {
		return strict.AtIndex(strict.Errorf("entries", "are those of another one"), "descriptors", i)
	}
	if len(f.descriptors) > 0 && len(p.GetRateLimits()) == 0 {
		return strict.Errorf("rate_limits", "is required where there are descriptors: those of routes are not supported")
	}
	for i, l := range p.GetRateLimits() {
		s, err := compileSequence(l, f.shown)
		if err != nil {
			return strict.AtIndex(err, "rate_limits", i)
		}
		if of := s.divides(); of != "" {
			for _, d := range f.descriptors {
				if d.pairs[0].value == of && !d.open {
					d.fair = s
				}
			}
			continue
		}
		for _, d := range f.descriptors {
			switch {
			case !s.may(d):
			case d.open:
				s.open = append(s.open, d)
			default:
				s.exact = append(s.exact, d)
			}
		}
		f.sequences = append(f.sequences, s)
	}
	return nil
}

// start makes buckets for what has none.
func (f *Filter) start() {
	for _, d := range f.descriptors {
		d.newLive(f.limit)
	}
	if f.standard != nil {
		f.standard.newLive(f.limit)
	}
}

// Adopt goes on with what the filter that is replaced has counted: the buckets of limits that are the same in both. f is not in use yet.
func (f *Filter) Adopt(old *Filter) {
	f.state = old.state
	if f.limit == old.limit {
		for _, d := range f.descriptors {
			for _, o := range old.descriptors {
				if d.same(o) {
					d.live = o.live
				}
			}
		}
	}
	if f.standard != nil && old.standard != nil && f.standard.rate == old.standard.rate {
		f.standard.live = old.standard.live
	}
}

// Routed is what is known of the route of a request.
type Routed struct{ Metadata *corev3.Metadata }

func (r Routed) find(filter string, path []string) string {
	s := r.Metadata.GetFilterMetadata()[filter]
	for i, key := range path {
		v := s.GetFields()[key]
		if i == len(path)-1 {
			return v.GetStringValue()
		}
		s = v.GetStructValue()
	}
	return ""
}

// Asked is a request.
type Asked struct {
	Info  *exchange.Info
	Route Routed
	// Random draws, where only a part of the requests is looked at.
	Random interface{ Uint64() uint64 }
}

// Shown is a bucket that the response tells of.
type Shown struct {
	rate   *rate
	bucket *bucket
	wait   time.Duration // what a share has to wait for
	state  *state
}

// Verdict is what the filter says of a request.
type Verdict struct {
	// Refused is that the request is to be answered; Over that there was no token, enforced or not.
	Refused, Over bool
	// Wait is how long it takes until there is a token, when there is none.
	Wait time.Duration
	// Shown is set when the response is to tell how much is left.
	Shown *Shown
}

// found is a bucket of a request.
type found struct {
	*descriptor
	bucket *bucket
	shown  bool
}

// Check takes the tokens of a request.
func (f *Filter) Check(r *Asked) (v Verdict) {
	if !hit(f.enabled, r) {
		return v
	}
	stats := &f.state.stats
	stats.Enabled.Add(1)
	now := f.state.elapsed(r.Info.Now)
	var few [8]found
	all := f.find(r, few[:0])
	tell := func(b *found, wait time.Duration) {
		if b.shown {
			v.Shown = &Shown{&b.rate, b.bucket, wait, f.state}
		}
	}
	for i := range all {
		b := &all[i]
		ok, wait := b.take(r, now)
		if ok {
			continue
		}
		if _, w := b.bucket.left(&b.rate, now); w > wait {
			wait = w
		}
		tell(b, wait)
		v.Over, v.Wait = true, wait
		break
	}
	if !v.Over {
		stats.OK.Add(1)
		if len(all) > 0 {
			tell(&all[0], 0)
		}
		return v
	}
	stats.RateLimited.Add(1)
	if v.Refused = hit(f.enforced, r); v.Refused {
		stats.Enforced.Add(1)
	}
	return v
}

// find finds the buckets of a request, the slowest first, the default one last.
func (f *Filter) find(r *Asked, all []found) []found {
	var few [8]pair
	for _, s := range f.sequences {
		pairs, ok := s.make(r, few[:0])
		if !ok {
			continue
		}
		d := s.find(pairs)
		if d == nil {
			continue
		}
		one := found{d, &d.live.one, s.shown}
		if d.open {
			var key [longKey]byte
			one.bucket = d.live.many.bucket(appendKey(key[:0], pairs))
		}
		at := len(all)
		for at > 0 && all[at-1].rate.fill > d.rate.fill {
			at--
		}
		all = append(all, found{})
		copy(all[at+1:], all[at:])
		all[at] = one
	}
	if f.standard != nil && (f.always || len(all) == 0) {
		all = append(all, found{f.standard, &f.standard.live.one, f.shown})
	}
	return all
}

// take takes a token.
func (b *found) take(r *Asked, now int64) (ok bool, wait time.Duration) {
	if b.live.shares == nil {
		return b.bucket.take(&b.rate, now), 0
	}
	var few [8]pair
	pairs, _ := b.fair.make(r, few[:0])
	var short [longKey]byte
	key := short[:0]
	for _, p := range pairs {
		key = appendKey(key, []pair{{value: p.key}, p})
	}
	return b.live.shares.take(key, b.bucket, now)
}

func (s *state) elapsed(now time.Time) int64 {
	start := s.start.Load()
	if start == nil {
		first := now // a variable of its own: only this one outlives the request
		s.start.CompareAndSwap(nil, &first)
		start = s.start.Load()
	}
	return int64(now.Sub(*start))
}

// Left is what the headers of a response say: the size of the bucket, what is in it, and in how many seconds there is a token.
func (s *Shown) Left(now time.Time) (limit, remaining, reset uint64) {
	remaining, wait := s.bucket.left(s.rate, s.state.elapsed(now))
	return s.rate.max, remaining, uint64(Seconds(max(wait, s.wait)))
}

// Seconds are whole ones, rounded up.
func Seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func fraction(p *corev3.RuntimeFractionalPercent) uint64 {
	v := p.GetDefaultValue()
	n := uint64(v.GetNumerator())
	switch v.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		n *= million / 10_000
	case typev3.FractionalPercent_HUNDRED:
		n *= million / 100
	case typev3.FractionalPercent_MILLION:
	}
	return min(n, million)
}

func hit(part uint64, r *Asked) bool {
	return part == million || part > 0 && r.Random.Uint64()%million < part
}
