package telemetry

import (
	"sync/atomic"
	"time"
)

// Sparing keeps a log readable where somebody else decides how often a line is due: it lets one of them through in a second, and
// counts the others. The zero value is ready; safe for concurrent use.
type Sparing struct {
	told    atomic.Int64 // the second, since 1970, of the last line
	leftOut atomic.Uint64
}

// Allow reports whether the line that is due now is to be written, and with it, how many have been left out since the one before.
func (s *Sparing) Allow(now time.Time) (leftOut uint64, ok bool) {
	second, told := now.Unix(), s.told.Load()
	if second == told || !s.told.CompareAndSwap(told, second) {
		s.leftOut.Add(1)
		return 0, false
	}
	return s.leftOut.Swap(0), true
}
