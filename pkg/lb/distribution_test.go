package lb

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// expected is what each member is to get: shares of priorities, then of localities, then of hosts, straight from Envoy's documentation.
// It knows of sets in which somebody is healthy and nobody is in panic.
func expected(members []Member, cfg Config) []float64 {
	type group struct{ total, well float64 }
	levels, places := map[uint32]*group{}, map[string]*group{}
	for _, m := range members {
		key := fmt.Sprint(m.Priority, m.Locality)
		if levels[m.Priority] == nil {
			levels[m.Priority] = &group{}
		}
		if places[key] == nil {
			places[key] = &group{}
		}
		levels[m.Priority].total++
		places[key].total++
		if m.Health == Healthy {
			levels[m.Priority].well++
			places[key].well++
		}
	}
	left, all := 100.0, 0.0
	carries := func(p uint32) float64 {
		if levels[p] == nil {
			return 0
		}
		return float64(int(min(100, 140*levels[p].well/levels[p].total)))
	}
	for p := range levels {
		all += carries(p)
	}
	all = min(all, 100)
	share := map[uint32]float64{}
	for p := range uint32(4) {
		share[p] = min(left, float64(int(carries(p)*100/all)))
		left -= share[p]
	}
	for p := range uint32(4) {
		if carries(p) > 0 {
			share[p] += left
			break
		}
	}
	weight := func(m Member) (place, own float64) {
		g := places[fmt.Sprint(m.Priority, m.Locality)]
		return float64(m.LocalityWeight) * min(1, 1.4*g.well/g.total), float64(m.Weight)
	}
	out := make([]float64, len(members))
	for i, m := range members {
		if m.Health != Healthy {
			continue
		}
		place, own := weight(m)
		sum, seen, hosts, flat := 0.0, map[string]bool{}, 0.0, 0.0
		for _, o := range members {
			if o.Priority != m.Priority || o.Health != Healthy {
				continue
			}
			p, w := weight(o)
			if !seen[o.Locality] {
				sum += p
			}
			seen[o.Locality] = true
			flat += w
			if o.Locality == m.Locality {
				hosts += w
			}
		}
		if cfg.LocalityWeighted {
			out[i] = share[m.Priority] / 100 * place / sum * own / hosts
		} else {
			out[i] = share[m.Priority] / 100 * own / flat
		}
	}
	return out
}

// Whatever the hosts are, each policy without a hash gives each its part: by the chi-square test, with a bound that chance passes once in
// millions of runs, and a seed that makes all runs alike.
func TestSharesOfRandomSets(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	const draws = 20000
	for n := range 60 {
		weighted := rnd.IntN(2) == 0
		var set []Member
		for place := range 1 + rnd.IntN(4) {
			weight, priority := uint32(1+rnd.IntN(9)), uint32(rnd.IntN(3))
			if n%3 == 0 {
				priority = 0
			}
			for range 1 + rnd.IntN(5) {
				m := Member{
					Host: &Host{}, Weight: uint32(1 + rnd.IntN(3)), Locality: fmt.Sprint("zone-", place), LocalityWeight: weight,
					Priority: priority, HashKey: fmt.Sprint(place, rnd.Uint64()),
				}
				if rnd.IntN(4) == 0 {
					m.Health = Unhealthy
				}
				set = append(set, m)
			}
		}
		if len(set) == 0 {
			continue
		}
		set[0].Health = Healthy
		for _, policy := range []Policy{Random, RoundRobin, LeastRequest} {
			cfg := Config{Policy: policy, LocalityWeighted: weighted}
			s := NewSet(set, cfg)
			got := make([]float64, len(set))
			for range draws {
				i, ok := s.Pick(&Request{Rand: rnd})
				if !ok {
					t.Fatalf("set %d: no host", n)
				}
				got[i]++
			}
			statistic, freedom := 0.0, -1.0
			for i, want := range expected(set, cfg) {
				if want == 0 {
					if got[i] > 0 {
						t.Errorf("set %d, policy %d: host %d got %v, and nothing is due to it", n, policy, i, got[i])
					}
					continue
				}
				d := got[i] - want*draws
				statistic += d * d / (want * draws)
				freedom++
			}
			// The mean is freedom, and five standard deviations above it is far out; what is laid out evenly is below.
			if limit := freedom + 10 + 5*2*freedom; statistic > limit {
				t.Errorf("set %d, policy %d: chi-square %.1f of at most %.1f: %v for %+v", n, policy, statistic, limit, got, set)
			}
		}
	}
}

// Few requests are spread by weight, too.
func TestFewRequestsOverLocalities(t *testing.T) {
	m := members(1, 1, 1)
	for i, weight := range []uint32{70, 20, 10} {
		m[i].Locality, m[i].LocalityWeight = fmt.Sprint("zone-", i), weight
	}
	s := NewSet(m, Config{LocalityWeighted: true})
	got := make([]int, 3)
	for range 100 {
		i, _ := s.Pick(&Request{Rand: global{}})
		got[i]++
	}
	for i, want := range []int{70, 20, 10} {
		if got[i] < want-3 || got[i] > want+3 {
			t.Errorf("locality %d got %d of 100, want %d", i, got[i], want)
		}
	}
}

// Least request looks at the load within a locality only: between localities the weights count.
func TestLoadDoesNotMoveLocalities(t *testing.T) {
	m := members(1, 1)
	m[0].Locality, m[0].LocalityWeight = "near", 80
	m[1].Locality, m[1].LocalityWeight = "far", 20
	for range 50 {
		m[0].Host.Begin()
	}
	near(t, shares(t, NewSet(m, Config{LocalityWeighted: true}), 10000, Request{}), []float64{0.8, 0.2}, 0.01)
}

func TestLocalitiesLoseHosts(t *testing.T) {
	m := members(1, 1, 1, 1)
	for i := range m {
		m[i].Locality, m[i].LocalityWeight = []string{"a", "a", "b", "b"}[i], 1
	}
	m[0].Health = Unhealthy // what is left of a carries 70 % of its share
	for _, policy := range []Policy{Random, RoundRobin, LeastRequest} {
		near(t, shares(t, NewSet(m, Config{Policy: policy, LocalityWeighted: true}), 10000, Request{}), []float64{0, 0.412, 0.294, 0.294}, 0.02)
	}
	near(t, shares(t, NewSet(m, Config{Policy: RingHash, MinRing: 8192, LocalityWeighted: true}), 10000, Request{HasHash: true}), []float64{0, 0.412, 0.294, 0.294}, 0.06)
	m[1].Health = Unhealthy
	near(t, shares(t, NewSet(m, Config{LocalityWeighted: true}), 10000, Request{}), []float64{0, 0, 0.5, 0.5}, 0.03)
	for i := range m { // a locality without weight gets nothing, unless none has any
		m[i].Health = Healthy
		m[i].LocalityWeight = uint32(i / 2)
	}
	near(t, shares(t, NewSet(m, Config{LocalityWeighted: true}), 10000, Request{}), []float64{0, 0, 0.5, 0.5}, 0.03)
	for i := range m {
		m[i].LocalityWeight = 0
	}
	near(t, shares(t, NewSet(m, Config{LocalityWeighted: true}), 10000, Request{}), []float64{0.25, 0.25, 0.25, 0.25}, 0.03)
}

// What the healthy hosts of all priorities cannot carry goes to degraded ones.
func TestDegradedHostsTakeTheRest(t *testing.T) {
	m := members(1, 1, 1, 1)
	m[1].Health, m[2].Health, m[3].Health = Degraded, Unhealthy, Unhealthy
	// One of four carries 35 %, the degraded one as much: together less than everything, so that each gets half of it.
	near(t, shares(t, NewSet(m, Config{Policy: Random}), 10000, Request{}), []float64{0.5, 0.5, 0, 0}, 0.03)
	m[2].Health, m[3].Health = Healthy, Healthy
	near(t, shares(t, NewSet(m, Config{Policy: Random}), 10000, Request{}), []float64{1. / 3, 0, 1. / 3, 1. / 3}, 0.03)
	for i := range m {
		m[i].Health = Degraded
	}
	near(t, shares(t, NewSet(m, Config{Policy: Random, PanicPercent: 50}), 10000, Request{}), []float64{0.25, 0.25, 0.25, 0.25}, 0.03)
}

// One priority in panic takes its share with all of its hosts, the other only with the healthy ones; when both are, health is no matter.
func TestPanicByPriority(t *testing.T) {
	m := members(1, 1, 1, 1, 1, 1, 1, 1)
	for i := range m {
		m[i].Health = Unhealthy
		m[i].Priority = uint32(i / 4)
	}
	m[0].Health, m[4].Health, m[5].Health = Healthy, Healthy, Healthy
	// 35 % and 70 % carry everything: nobody is in panic.
	near(t, shares(t, NewSet(m, Config{Policy: Random, PanicPercent: 50}), 10000, Request{}), []float64{0.35, 0, 0, 0, 0.325, 0.325, 0, 0}, 0.03)
	m[5].Health = Unhealthy
	// 35 % and 35 %: both are in panic, and get by the number of their hosts.
	even := make([]float64, 8)
	for i := range even {
		even[i] = 0.125
	}
	near(t, shares(t, NewSet(m, Config{Policy: Random, PanicPercent: 50}), 10000, Request{}), even, 0.03)
	near(t, shares(t, NewSet(m, Config{Policy: Random}), 10000, Request{}), []float64{0.5, 0, 0, 0, 0.5, 0, 0, 0}, 0.03)
	if _, ok := NewSet(m, Config{Policy: Random, PanicPercent: 50, FailInPanic: true}).Pick(&Request{Rand: global{}}); ok {
		t.Error("a host was found in panic")
	}
}

func TestHealthByWeight(t *testing.T) {
	m := members(9, 1, 1)
	m[2].Priority = 1
	m[0].Health = Unhealthy
	near(t, shares(t, NewSet(m, Config{Policy: Random}), 10000, Request{}), []float64{0, 0.7, 0.3}, 0.03)
	near(t, shares(t, NewSet(m, Config{Policy: Random, WeightedHealth: true}), 10000, Request{}), []float64{0, 0.14, 0.86}, 0.03)
}

func TestLocalitiesAllocateNothing(t *testing.T) {
	m := members(1, 2, 3, 4)
	for i := range m {
		m[i].Locality, m[i].LocalityWeight, m[i].Priority = fmt.Sprint(i), uint32(i+1), uint32(i/3)
	}
	m[0].Health = Unhealthy
	for _, policy := range []Policy{LeastRequest, RoundRobin, Random, RingHash, Maglev} {
		s := NewSet(m, Config{Policy: policy, LocalityWeighted: true})
		r := Request{Rand: global{}, HasHash: true}
		if n := testing.AllocsPerRun(100, func() { s.Pick(&r) }); n != 0 {
			t.Errorf("policy %d: %v allocations", policy, n)
		}
	}
}
