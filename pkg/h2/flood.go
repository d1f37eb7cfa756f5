package h2

import "time"

// Budget bounds how often a peer may make us work for nothing: SETTINGS and PING floods, rapid reset, empty
// frames. It is a token bucket without a timer.
type Budget struct {
	tokens float64
	last   time.Time
	burst  float64
	rate   float64 // tokens per second
}

// NewBudget allows burst events at once and perSecond in the long run.
func NewBudget(burst, perSecond float64) Budget {
	return Budget{tokens: burst, burst: burst, rate: perSecond}
}

// Spend takes one event out of the budget and reports false when there is none left.
func (b *Budget) Spend() bool {
	if b.tokens < 1 {
		now := time.Now() // only a peer near its limit costs us the clock
		if !b.last.IsZero() {
			b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.last).Seconds())
		} else {
			b.tokens = 1
		}
		b.last = now
		if b.tokens < 1 {
			return false
		}
	}
	b.tokens--
	return true
}

// Earn puts n events back: for a peer that also gives us something to do that is of use to somebody.
func (b *Budget) Earn(n int) { b.tokens = min(b.burst, b.tokens+float64(n)) }
