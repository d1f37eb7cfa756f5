package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// churn is one kind of change, made again and again.
type churn struct {
	name string
	// pause is from the end of a change to the next one; it is drawn from half to one and a half of it.
	pause time.Duration
	make  func(ctx context.Context, n int) error
}

// run makes changes until stop is closed; the last one is made to its end. A change that does not come true counts as lost.
func (c churn) run(ctx context.Context, stop <-chan struct{}, l *ledger, pace float64) {
	for n := 1; ; n++ {
		wait := time.Duration(float64(c.pause) * (0.5 + rand.Float64()) / pace)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return
		}
		if err := l.change(c.name, func() error { return c.make(ctx, n) }); err != nil && ctx.Err() == nil {
			l.lose("change: "+c.name, err)
		}
	}
}

// churning makes all changes at once for the given time, and returns when the last of them are made.
func churning(ctx context.Context, d time.Duration, l *ledger, pace float64, all ...churn) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, c := range all {
		running.Go(func() { c.run(ctx, stop, l, pace) })
	}
	pause(ctx, d)
	close(stop)
	running.Wait()
}

// planeChurn is what happens to the control plane in both parts. It lives for a third of the run, so that one sees whether it grows.
func (b *bed) planeChurn() []churn {
	return []churn{
		{"xDS and CA connections cut", 8 * time.Second, func(context.Context, int) error {
			b.relay.cut()
			return nil
		}},
		{"control plane replaced", time.Duration(float64(b.options.time) / 3 * b.options.pace), func(ctx context.Context, _ int) error {
			return b.replacing(ctx, meshNamespace, "istiod-", func() error { return b.box.Restart(ctx, "Deployment", meshNamespace, "istiod") })
		}},
	}
}

// principals as policies write them.
func principals(accounts ...string) string {
	out := make([]string, len(accounts))
	for i, a := range accounts {
		out[i] = fmt.Sprintf("%q", "cluster.local/ns/"+namespace+"/sa/"+a)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
