package ratelimit

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// rate is how a bucket fills: a token every per nanoseconds, until it has max.
type rate struct {
	max uint64
	per int64 // 0 is without limit
	// full is the time that it takes to fill an empty bucket, in nanoseconds.
	full int64
	// fill is tokens per second, by which limits are ordered; tokens in every is how it was written.
	fill   float64
	tokens uint64
	every  time.Duration
}

// longest is more than a process lives, with room for a few sums.
const longest = math.MaxInt64 / 8

func newRate(tokens, perFill uint64, interval time.Duration) rate {
	r := rate{max: tokens, per: int64(interval) / int64(max(perFill, 1)), fill: float64(perFill) / interval.Seconds(), tokens: perFill, every: interval}
	hi, lo := bits.Mul64(tokens, uint64(r.per))
	r.full = int64(min(lo, longest))
	if hi > 0 {
		r.full = longest
	}
	return r
}

// bucket is a token bucket. What is stored is when it will be full again; a new one is full.
type bucket struct{ at atomic.Int64 }

// take takes a token, if there is a whole one.
func (b *bucket) take(r *rate, now int64) bool {
	if r.per == 0 {
		return true
	}
	for {
		at := b.at.Load()
		next := max(at, now) + r.per
		if next-now > r.full {
			return false
		}
		if b.at.CompareAndSwap(at, next) {
			return true
		}
	}
}

// left is how many tokens there are, and how long it takes until there is one: 0 when there is.
func (b *bucket) left(r *rate, now int64) (tokens uint64, wait time.Duration) {
	if r.per == 0 {
		return r.max, 0
	}
	used := max(b.at.Load()-now, 0)
	if tokens = uint64(max(r.full-used, 0) / r.per); tokens > 0 {
		return tokens, 0
	}
	return 0, time.Duration(used + r.per - r.full)
}
