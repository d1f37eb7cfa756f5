package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// pacer says when the requests of a connection are due: at random, so many in a time on average, whatever became of those before.
type pacer struct {
	at    time.Time
	every time.Duration
	rnd   *rand.Rand
}

func (p *pacer) next() time.Time {
	p.at = p.at.Add(time.Duration(p.rnd.ExpFloat64() * float64(p.every)))
	return p.at
}

// paced are the scenarios whose p99 is measured at half of saturation: requests come at half of the rate that the slowest of the proxies
// carries at full load, in the same run, at the same moments for each of them. A request that finds no room on its connection counts
// from when it was due. The target against Envoy is that of the design: not more than Envoy's. HAProxy's is for reading.
func paced() []scenario {
	var out []scenario
	for _, s := range scenarios() {
		switch s.name {
		case "l7-h1-16", "l7-h2-4x8", "l7-hbone-16":
			s.name, s.target = "l7-p99"+strings.TrimPrefix(s.name, "l7"), map[string]float64{envoyed: 1}
			out = append(out, s)
		}
	}
	return out
}

// paces measures them.
func paces(ctx context.Context, b *testbed, r *report) error {
	return r.table("latency at half of saturation\tisthmus p50\tp99\tHAProxy p50\tp99\tEnvoy p50\tp99\trequests per second", func(w io.Writer) error {
		for _, s := range paced() {
			if !b.options.wants(s.name) {
				continue
			}
			rate, sessions, err := b.pace(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Fprint(w, s.name)
			for _, name := range []string{isthmus, haproxy, envoyed} {
				fmt.Fprintf(w, "\t%s\t%s", micro(sessions, name, middleOf), micro(sessions, name, slowOf))
			}
			fmt.Fprintf(w, "\t%.0f\n", rate)
			r.ratios(s, sessions, slowOf)
		}
		return nil
	})
}

func middleOf(s *session) []float64 { return s.middle }

// pace measures a scenario at half of the rate of the slowest proxy.
func (b *testbed) pace(ctx context.Context, s scenario) (rate float64, byName map[string]*session, err error) {
	sessions, byName, err := b.open(ctx, s)
	if err != nil {
		return 0, nil, err
	}
	defer closeAll(sessions)
	n := max(b.options.requests/4, 1)
	for _, open := range sessions {
		start := time.Now()
		if err := open.load(n); err != nil {
			return 0, nil, fmt.Errorf("%s: %w", open.proxy.name, err)
		}
		if reached := float64(n) / time.Since(start).Seconds(); rate == 0 || reached < rate {
			rate = reached
		}
	}
	rate /= 2
	for rep := range b.options.reps {
		for _, open := range sessions {
			if ctx.Err() != nil {
				return 0, nil, ctx.Err()
			}
			if err := open.pace(n, rate, uint64(rep)); err != nil {
				return 0, nil, fmt.Errorf("%s: %w", open.proxy.name, err)
			}
		}
	}
	return rate, byName, nil
}

// pace makes n requests at a rate per second, over all connections, and notes how long they take.
func (s *session) pace(n int, rate float64, seed uint64) error {
	var g errgroup.Group
	share := max(n/len(s.clients), 1)
	start := time.Now()
	for i, c := range s.clients {
		s.watches[i].took = s.watches[i].took[:0]
		p := &pacer{at: start, every: time.Duration(float64(len(s.clients)) / rate * float64(time.Second)), rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
		g.Go(func() error { return c.pace(share, p, &s.watches[i]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	all := s.times()
	s.middle = append(s.middle, float64(all[len(all)/2]))
	s.slow = append(s.slow, float64(all[len(all)*99/100]))
	return nil
}

// times are those of all requests of the last load, sorted.
func (s *session) times() []time.Duration {
	var all []time.Duration
	for i := range s.watches {
		all = append(all, s.watches[i].took...)
	}
	slices.Sort(all)
	return all
}
