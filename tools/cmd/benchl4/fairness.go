package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// neighbours is the row about a workload whose neighbour is noisy.
const neighbours = "noisy-neighbour"

// The noise: so many connections, against one of the victim's.
const noisyConns = 10

// noise is what a neighbour does on one connection until it is closed.
type noise struct {
	name string
	make func(conn net.Conn, n int) error
	op   func(n int) byte
}

func noises() []noise {
	endless := func(conn net.Conn, n int) error {
		if n%2 == 0 {
			return produce(conn, maxTransfer)
		}
		return swallow(conn, maxTransfer)
	}
	return []noise{
		{"round trips", func(conn net.Conn, _ int) error { return pingPong(conn, maxTransfer) }, func(int) byte { return opEcho }},
		{"bulk", endless, func(n int) byte { return "ud"[n%2] }},
	}
}

// maxTransfer never ends.
const maxTransfer = 1 << 50

// latencies of a victim in one repetition.
type latencies []time.Duration

// percentile is in nanoseconds.
func (l latencies) percentile(p float64) float64 {
	slices.Sort(l)
	return float64(l[min(int(float64(len(l))*p), len(l)-1)])
}

// fairness measures round trips of one workload: alone; with a neighbour at ten times its connections that makes its noise through proxies of
// its own, between which the kernel divides the processors; and with one that makes the same noise through the same proxies. What the second
// costs is the machine's, not the proxies'. The three are interleaved, and the medians of what each repetition came to are printed.
func fairness(ctx context.Context, b *testbed, o options, w io.Writer) error {
	shared, apart := b.tunnels[isthmus], b.tunnels[awake]
	percentiles := []float64{.5, .99}
	for _, noise := range noises() {
		var found [2][3][]float64 // by percentile and part
		for range o.reps {
			for part, neighbour := range []dialer{nil, through(apart.client.second), through(shared.client.second)} {
				got, err := disturbed(ctx, shared.dial, neighbour, noise, o.trips/20)
				if err != nil {
					return fmt.Errorf("%s: %w", noise.name, err)
				}
				for k, p := range percentiles {
					found[k][part] = append(found[k][part], got.percentile(p))
				}
			}
		}
		for k, p := range percentiles {
			alone, other, same := median(found[k][0]), median(found[k][1]), median(found[k][2])
			fmt.Fprintf(w, "%s, %s p%.0f\t%.0f µs\tother proxies\t%.0f µs\t%.2f\talone %.0f µs\n", neighbours, noise.name, 100*p,
				same/1e3, other/1e3, same/other, alone/1e3)
		}
	}
	return nil
}

// disturbed makes n round trips while a neighbour, if there is one, makes its noise.
func disturbed(ctx context.Context, victim, neighbour dialer, noise noise, n int) (latencies, error) {
	ended := make(chan struct{}, noisyConns)
	var conns []net.Conn
	if neighbour != nil {
		for k := range noisyConns {
			conn, err := ask(ctx, neighbour, noise.op(k), maxTransfer)
			if err != nil {
				return nil, err
			}
			conns = append(conns, conn)
			go func() {
				_ = noise.make(conn, k) // until it is closed
				ended <- struct{}{}
			}()
		}
	}
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
		for range conns {
			<-ended
		}
	}()
	conn, err := ask(ctx, victim, opEcho, 0)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := pingPong(conn, n/10+1); err != nil { // until everything has its size
		return nil, err
	}
	var l latencies
	for range n {
		start := time.Now()
		if err := pingPong(conn, 1); err != nil {
			return nil, err
		}
		l = append(l, time.Since(start))
	}
	return l, nil
}
