package ratelimit

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// FairKey is the key of the first pair of a descriptor that says how a bucket is divided: its value is that of the first pair of the
// descriptor whose bucket it is.
const FairKey = "isthmus.fair-share"

// pair is a part of a descriptor. In a configured one an empty value is left open.
type pair struct{ key, value string }

// descriptor is a configured one.
type descriptor struct {
	pairs []pair
	open  bool // has values that are left open
	rate  rate
	// live is what is counted; of a descriptor that is divided, fair is the entry that says by what.
	live *live
	fair *sequence
}

// live is what a descriptor counts: exactly one of its kinds of buckets is used, shares beside the one.
type live struct {
	one    bucket
	many   *table
	shares *shares
}

func compileDescriptor(p *ratelimitv3.LocalRateLimitDescriptor) (*descriptor, error) {
	d := &descriptor{}
	for i, e := range p.GetEntries() {
		if e.GetKey() == "" {
			return nil, strict.AtIndex(strict.Errorf("key", "is required"), "entries", i)
		}
		d.pairs = append(d.pairs, pair{e.GetKey(), e.GetValue()})
		d.open = d.open || e.GetValue() == ""
	}
	if len(d.pairs) == 0 {
		return nil, strict.Errorf("entries", "is required")
	}
	var err error
	d.rate, err = compileBucket(p.GetTokenBucket())
	return d, strict.At(err, "token_bucket")
}

func compileBucket(p *typev3.TokenBucket) (rate, error) {
	fill := uint64(1)
	if p.GetTokensPerFill() != nil {
		fill = uint64(p.GetTokensPerFill().GetValue())
	}
	every := p.GetFillInterval().AsDuration()
	switch {
	case p == nil:
		return rate{}, strict.Errorf("", "is required")
	case p.GetMaxTokens() == 0:
		return rate{}, strict.Errorf("max_tokens", "must be greater than 0")
	case fill == 0:
		return rate{}, strict.Errorf("tokens_per_fill", "must be greater than 0")
	case every.Milliseconds() < 50:
		return rate{}, strict.Errorf("fill_interval", "must be at least 50ms")
	}
	return newRate(uint64(p.GetMaxTokens()), fill, every), nil
}

// matches is whether the pairs of a request are those of the descriptor.
func (d *descriptor) matches(pairs []pair) bool {
	if len(pairs) != len(d.pairs) {
		return false
	}
	for i := range pairs {
		if pairs[i].key != d.pairs[i].key || d.pairs[i].value != "" && d.pairs[i].value != pairs[i].value {
			return false
		}
	}
	return true
}

// sequence is a rate_limits entry.
type sequence struct {
	actions []action
	shown   bool // x-ratelimit headers
	// exact and open are the configured descriptors that the entry may make.
	exact, open []*descriptor
}

func compileSequence(p *routev3.RateLimit, shown bool) (*sequence, error) {
	s := &sequence{shown: shown}
	switch p.GetXRatelimitOption() {
	case routev3.RateLimit_OFF:
		s.shown = false
	case routev3.RateLimit_DRAFT_VERSION_03:
		s.shown = true
	case routev3.RateLimit_UNSPECIFIED:
	}
	for i, a := range p.GetActions() {
		one, err := compileAction(a)
		if err != nil {
			return nil, strict.AtIndex(err, "actions", i)
		}
		s.actions = append(s.actions, one)
	}
	if len(s.actions) == 0 {
		return nil, strict.Errorf("actions", "is required")
	}
	return s, nil
}

// divides is whose bucket the entry divides; "" is that it is an ordinary one.
func (s *sequence) divides() string {
	if a := &s.actions[0]; a.kind == literal && a.key == FairKey {
		return a.text
	}
	return ""
}

// may is whether the entry can make a descriptor.
func (s *sequence) may(d *descriptor) bool {
	at := 0
	for i := range s.actions {
		a := &s.actions[i]
		if at < len(d.pairs) && d.pairs[at].key == a.key && (a.kind != literal || d.pairs[at].value == "" || d.pairs[at].value == a.text) {
			at++
			continue
		}
		if !a.skip {
			return false
		}
	}
	return at == len(d.pairs)
}

// make makes the descriptor of a request.
func (s *sequence) make(r *Asked, pairs []pair) ([]pair, bool) {
	for i := range s.actions {
		a := &s.actions[i]
		v, ok := a.value(r)
		switch {
		case ok:
			pairs = append(pairs, pair{a.key, v})
		case !a.skip:
			return nil, false
		}
	}
	return pairs, len(pairs) > 0
}

// find finds the configured descriptor.
func (s *sequence) find(pairs []pair) *descriptor {
	for _, d := range s.exact {
		if d.matches(pairs) {
			return d
		}
	}
	for _, d := range s.open {
		if d.matches(pairs) {
			return d
		}
	}
	return nil
}

// appendKey writes the values that a descriptor has left open, with their lengths, so that no two combinations are written alike.
func appendKey(key []byte, pairs []pair) []byte {
	for _, p := range pairs {
		n := len(p.value)
		key = append(key, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		key = append(key, p.value...)
	}
	return key
}

// signature is what makes two descriptors the same limit.
func (d *descriptor) signature() string {
	var b strings.Builder
	for _, p := range d.pairs {
		b.Write(appendKey(appendKey(nil, []pair{{value: p.key}}), []pair{p}))
	}
	if d.fair != nil {
		b.WriteByte(1)
		for i := range d.fair.actions {
			a := &d.fair.actions[i]
			b.WriteByte(byte(a.kind))
			b.Write(appendKey(nil, []pair{{value: a.key}, {value: a.text}, {value: strings.Join(a.path, "\x00")}}))
		}
	}
	return b.String()
}

func (d *descriptor) same(o *descriptor) bool {
	return d.rate == o.rate && d.signature() == o.signature()
}

// newLive makes what is counted.
func (d *descriptor) newLive(limit int) {
	d.live = &live{}
	switch {
	case d.open:
		d.live.many = newTable(limit)
	case d.fair != nil:
		rate := d.rate
		d.live.shares = newShares(&rate, limit)
	}
}

func duplicate(list []*descriptor) int {
	for i, d := range list {
		if slices.ContainsFunc(list[:i], func(o *descriptor) bool { return slices.Equal(o.pairs, d.pairs) }) {
			return i
		}
	}
	return -1
}
