package telemetry_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

func TestSparing(t *testing.T) {
	var s telemetry.Sparing
	at := time.Unix(1_000_000_000, 0)
	for _, step := range []struct {
		after   time.Duration
		leftOut uint64
		ok      bool
	}{
		{0, 0, true},
		{0, 0, false},
		{999 * time.Millisecond, 0, false},
		{time.Millisecond, 2, true},
		{10 * time.Millisecond, 0, false},
		{time.Hour, 1, true},
		{time.Second, 0, true}, // none was left out
	} {
		at = at.Add(step.after)
		if leftOut, ok := s.Allow(at); leftOut != step.leftOut || ok != step.ok {
			t.Errorf("at %v: %d, %v; want %d, %v", at, leftOut, ok, step.leftOut, step.ok)
		}
	}
}

// Every line is written or counted.
func TestSparingSideBySide(t *testing.T) {
	var s telemetry.Sparing
	var written, leftOut atomic.Uint64
	var all sync.WaitGroup
	const each, seconds = 1000, 10
	for range 8 {
		all.Go(func() {
			for n := range each {
				if omitted, ok := s.Allow(time.Unix(int64(1+n/(each/seconds)), 0)); ok {
					written.Add(1)
					leftOut.Add(omitted)
				}
			}
		})
	}
	all.Wait()
	omitted, ok := s.Allow(time.Unix(1000, 0))
	if got := written.Load() + leftOut.Load() + omitted; !ok || got != 8*each {
		t.Errorf("%d lines written and %d counted, of %d", written.Load(), leftOut.Load()+omitted, 8*each)
	}
}
