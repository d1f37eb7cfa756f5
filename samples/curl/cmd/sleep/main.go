// Command sleep waits: for SIGTERM, or for the time given. It is the main
// process of client workloads in which people run commands by hand.
// Usage: sleep [infinity | NUMBER[s|m|h|d]]; without an argument, infinity.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := sleep(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sleep:", err)
		os.Exit(1)
	}
}

// sleep returns when ctx ends or the time is over.
func sleep(ctx context.Context, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%d arguments given; usage: sleep [infinity | NUMBER[s|m|h|d]]", len(args))
	}
	if len(args) == 0 || args[0] == "infinity" || args[0] == "inf" {
		<-ctx.Done()
		return nil
	}
	d, err := parse(args[0])
	if err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return nil
}

// parse reads a time as sleep(1) does: 2.5, 30s, 5m, 1h, 3650d.
func parse(s string) (time.Duration, error) {
	number, unit := s, time.Second
	for suffix, u := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			number, unit = n, u
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	d := time.Duration(f * float64(unit))
	if err != nil || !(f >= 0) || d < 0 { // !(f >= 0) is also true for NaN
		return 0, fmt.Errorf("time %q: want infinity or NUMBER[s|m|h|d]", s)
	}
	return d, nil
}
