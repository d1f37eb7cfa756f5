package main

import "runtime/debug"

// loadPercent is GOGC while the first objects come. What the heap grows to is not known, but it is not garbage: with Go's 100 all of it
// would be marked again each time that it has doubled, from 4 MiB on.
const loadPercent = 300

// collectRarely has garbage collected less often until restore is called. A higher GOGC, and one that is off, stays, and so does the
// limit of memory, which is kept however rarely that would be.
func collectRarely() (restore func()) {
	before := debug.SetGCPercent(loadPercent)
	if before < 0 || before > loadPercent {
		debug.SetGCPercent(before)
		return func() {}
	}
	return func() { debug.SetGCPercent(before) }
}
