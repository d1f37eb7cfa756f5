package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep(t *testing.T) {
	for arg, want := range map[string]time.Duration{"2.5": 2500 * time.Millisecond, "30s": 30 * time.Second, "5m": 5 * time.Minute, "1h": time.Hour, "3650d": 3650 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			if err := sleep(t.Context(), []string{arg}); err != nil || time.Since(start) != want {
				t.Errorf("%s: %v after %v", arg, err, time.Since(start))
			}
		})
	}
	for _, args := range [][]string{nil, {"infinity"}, {"1h"}} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			if err := sleep(ctx, args); err != nil || time.Since(start) != time.Minute {
				t.Errorf("%v does not end with its context: %v after %v", args, err, time.Since(start))
			}
		})
	}
	for _, args := range [][]string{{"x"}, {"-1"}, {"1", "2"}, {"1w"}, {"NaN"}} {
		if err := sleep(t.Context(), args); err == nil {
			t.Errorf("%v accepted", args)
		}
	}
}
