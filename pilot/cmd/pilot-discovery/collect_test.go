package main

import (
	"runtime/debug"
	"testing"
)

func TestGarbageIsCollectedAsBeforeOnceAllIsLoaded(t *testing.T) {
	own := debug.SetGCPercent(100)
	defer debug.SetGCPercent(own)
	for _, tt := range []struct{ before, during int }{{100, loadPercent}, {50, loadPercent}, {loadPercent + 1, loadPercent + 1}, {-1, -1}} {
		debug.SetGCPercent(tt.before)
		restore := collectRarely()
		during := debug.SetGCPercent(100)
		debug.SetGCPercent(during)
		restore()
		if after := debug.SetGCPercent(100); during != tt.during || after != tt.before {
			t.Errorf("of %d became %d, then %d", tt.before, during, after)
		}
	}
}
