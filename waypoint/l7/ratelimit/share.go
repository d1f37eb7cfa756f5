package ratelimit

import (
	"math"
	"slices"
	"sync"
	"time"
)

// shares divide the tokens of one bucket among keys, so that none gets more than an equal part while others lack theirs. Now and then
// it is measured how much each key asks for; of these demands those that are below an equal part are met, and what they leave is
// divided among the others, as water finds its level. While there is enough for all, nothing but the bucket limits them.
//
// All fields but rate are guarded by mu: a bucket has one level, whoever asks.
type shares struct {
	rate  *rate
	limit int

	mu      sync.Mutex
	known   map[string]*share
	recent  share // of a ring, as in a table
	since   int64 // start of the period that is measured
	level   float64
	demands []float64 // kept for its memory
}

// share is what is known of a key.
type share struct {
	key          string
	next, before *share
	asked        int     // in this period
	demand       float64 // per second
	tokens       float64
	filled       int64 // when tokens was right
}

const (
	// measured is how many tokens come into the bucket in a period, within bounds: fewer would say little about demands.
	measured              = 20
	shortPeriod           = 100 * time.Millisecond
	longPeriod            = 10 * time.Second
	forgotten             = 30 // periods without a request
	weight                = .5 // of the newest period in a demand
	negligible    float64 = .01
	withoutLevel          = math.MaxFloat64
	fullPrecision         = 1e-9
)

func newShares(r *rate, limit int) *shares {
	s := &shares{rate: r, limit: limit, known: map[string]*share{}, level: withoutLevel}
	s.recent.next, s.recent.before = &s.recent, &s.recent
	return s
}

func (s *shares) period() int64 {
	return min(max(s.rate.per*measured, int64(shortPeriod)), int64(longPeriod))
}

// take takes a token of the bucket for a key, if it is within its share. wait is how long it takes until the share has one.
func (s *shares) take(key []byte, b *bucket, now int64) (ok bool, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if elapsed := now - s.since; elapsed >= s.period() {
		s.measure(elapsed, now)
	}
	one := s.of(key, now)
	one.asked++
	one.fill(s.level, s.most(), now)
	if s.level != withoutLevel && one.tokens < 1-fullPrecision {
		return false, time.Duration((1 - one.tokens) / s.level * float64(time.Second))
	}
	if !b.take(s.rate, now) {
		return false, 0
	}
	one.tokens = max(one.tokens-1, 0)
	return true, 0
}

// most is how many tokens a share keeps: the burst, in the same part as the rate.
func (s *shares) most() float64 {
	if s.level == withoutLevel {
		return float64(s.rate.max)
	}
	return max(1, float64(s.rate.max)*min(s.level/s.rate.fill, 1))
}

func (o *share) fill(level, most float64, now int64) {
	if level == withoutLevel {
		o.tokens = most
	} else {
		o.tokens = min(most, o.tokens+level*float64(now-o.filled)/float64(time.Second))
	}
	o.filled = now
}

// of finds the share of a key, or makes it.
func (s *shares) of(key []byte, now int64) *share {
	one := s.known[string(key)]
	if one == nil {
		one = &share{key: string(key), tokens: 1, filled: now}
		if len(s.known) >= s.limit {
			s.drop(s.recent.before)
		}
		s.known[one.key] = one
	} else {
		one.unlink()
	}
	one.next, one.before = s.recent.next, &s.recent
	one.next.before, s.recent.next = one, one
	return one
}

func (o *share) unlink() { o.before.next, o.next.before = o.next, o.before }

func (s *shares) drop(o *share) {
	o.unlink()
	delete(s.known, o.key)
}

// measure ends a period.
func (s *shares) measure(elapsed, now int64) {
	seconds := float64(elapsed) / float64(time.Second)
	most := s.most()
	s.demands = s.demands[:0]
	for o := s.recent.before; o != &s.recent; {
		next := o.before
		o.fill(s.level, most, now)
		o.demand = (1-weight)*o.demand + weight*float64(o.asked)/seconds
		if o.asked == 0 && (o.demand < negligible*s.rate.fill/float64(len(s.known)) || elapsed > forgotten*s.period()) {
			s.drop(o)
		} else {
			s.demands = append(s.demands, max(o.demand, float64(o.asked)/seconds))
		}
		o.asked = 0
		o = next
	}
	s.level = levelOf(s.demands, s.rate.fill)
	s.since = now
}

// levelOf is the most that a key may have so that all together have no more than the rate: what is left when the smaller demands are met,
// in equal parts. demands is sorted. withoutLevel is that there is enough.
func levelOf(demands []float64, rate float64) float64 {
	slices.Sort(demands)
	left := rate
	for i, d := range demands {
		equal := left / float64(len(demands)-i)
		if d > equal {
			return equal
		}
		left -= d
	}
	return withoutLevel
}

// size is how many keys are known.
func (s *shares) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known)
}
