package lb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// global is the runtime's generator, safe for concurrent use.
type global struct{}

func (global) Uint64() uint64 { return rand.Uint64() }

func members(weights ...uint32) []Member {
	var out []Member
	for i, w := range weights {
		out = append(out, Member{Host: &Host{}, Weight: w, HashKey: fmt.Sprintf("10.0.0.%d:8080", i)})
	}
	return out
}

func shares(t *testing.T, s *Set, n int, r Request) []float64 {
	t.Helper()
	r.Rand = global{}
	out := make([]float64, s.Len())
	for range n {
		if r.HasHash {
			r.Hash = rand.Uint64()
		}
		i, ok := s.Pick(&r)
		if !ok {
			t.Fatal("no host")
		}
		out[i] += 1 / float64(n)
	}
	return out
}

func near(t *testing.T, got, want []float64, tolerance float64) {
	t.Helper()
	for i := range want {
		if math.Abs(got[i]-want[i]) > tolerance {
			t.Errorf("host %d gets %.3f, want %.3f of %v", i, got[i], want[i], got)
		}
	}
}

func TestWeightsAreFollowed(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy Policy
		hash   bool
	}{{"least request", LeastRequest, false}, {"round robin", RoundRobin, false}, {"random", Random, false}, {"ring", RingHash, true}, {"maglev", Maglev, true}} {
		t.Run(test.name, func(t *testing.T) {
			for _, weights := range [][]uint32{{1, 1, 1, 1}, {1, 2, 3, 4}, {0, 0}, {90, 10}, {5}} {
				s := NewSet(members(weights...), Config{Policy: test.policy, MinRing: 8192})
				var want []float64
				var sum float64
				for _, w := range weights {
					sum += float64(max(w, 1))
				}
				for _, w := range weights {
					want = append(want, float64(max(w, 1))/sum)
				}
				near(t, shares(t, s, 20000, Request{HasHash: test.hash}), want, 0.06)
			}
		})
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	s := NewSet(members(3, 1), Config{Policy: RoundRobin})
	run, light := 0, 0
	for range 400 {
		i, _ := s.Pick(&Request{Rand: global{}})
		if i == 1 {
			run = 0
			light++
			continue
		}
		if run++; run > 4 {
			t.Fatal("the lighter host waits for longer than its turn")
		}
	}
	if light != 100 {
		t.Errorf("the lighter host got %d of 400", light)
	}
}

func TestLeastRequestAvoidsLoad(t *testing.T) {
	m := members(1, 1)
	for range 10 {
		m[0].Host.Begin()
	}
	s := NewSet(m, Config{})
	// Both choices fall on the loaded one in a quarter of the cases.
	near(t, shares(t, s, 20000, Request{}), []float64{0.25, 0.75}, 0.03)
	if m[0].Host.Active() != 10 {
		t.Error("the count did not survive")
	}
}

func TestHealthAndPanic(t *testing.T) {
	health := func(sick int, total int) []Member {
		m := members(make([]uint32, total)...)
		for i := range sick {
			m[i].Health = Unhealthy
		}
		return m
	}
	for _, test := range []struct {
		name        string
		members     []Member
		panics      float64
		wantSick    float64 // share of the unhealthy ones
		unavailable bool
	}{
		{name: "one sick of four", members: health(1, 4), panics: 50},
		{name: "two of four", members: health(2, 4), panics: 50},
		{name: "three of four", members: health(3, 4), panics: 50, wantSick: 0.75},
		{name: "three of four, panic off", members: health(3, 4)},
		{name: "all", members: health(4, 4), panics: 50, wantSick: 1},
		{name: "all, panic off", members: health(4, 4), unavailable: true},
		{name: "none there", panics: 50, unavailable: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSet(test.members, Config{Policy: Random, PanicPercent: test.panics})
			if _, ok := s.Pick(&Request{Rand: global{}}); ok == test.unavailable {
				t.Fatalf("a host was found: %t", ok)
			}
			if test.unavailable {
				return
			}
			var sick float64
			for i, share := range shares(t, s, 10000, Request{}) {
				if test.members[i].Health == Unhealthy {
					sick += share
				}
			}
			near(t, []float64{sick}, []float64{test.wantSick}, 0.03)
		})
	}
}

func TestPrioritiesSpillOver(t *testing.T) {
	m := members(1, 1, 1, 1)
	m[2].Priority, m[3].Priority = 1, 1
	near(t, shares(t, NewSet(m, Config{Policy: Random}), 10000, Request{}), []float64{0.5, 0.5, 0, 0}, 0.03)
	m[0].Health = Unhealthy // half of priority 0 carries 70 %
	near(t, shares(t, NewSet(m, Config{Policy: Random, PanicPercent: 50}), 10000, Request{}), []float64{0, 0.7, 0.15, 0.15}, 0.03)
	m[1].Health = Unhealthy
	near(t, shares(t, NewSet(m, Config{Policy: Random, PanicPercent: 50}), 10000, Request{}), []float64{0, 0, 0.5, 0.5}, 0.03)
}

func TestLocalitiesByWeight(t *testing.T) {
	m := members(1, 1, 1)
	for i := range m {
		m[i].Locality, m[i].LocalityWeight = "a", 1
	}
	m[2].Locality, m[2].LocalityWeight = "b", 3
	near(t, shares(t, NewSet(m, Config{Policy: Random, LocalityWeighted: true}), 10000, Request{}), []float64{0.125, 0.125, 0.75}, 0.03)
}

func TestHashingIsConsistent(t *testing.T) {
	for _, policy := range []Policy{RingHash, Maglev} {
		m := members(make([]uint32, 10)...)
		before, after := NewSet(m, Config{Policy: policy, MinRing: 4096}), NewSet(m[:9], Config{Policy: policy, MinRing: 4096})
		moved := 0
		const n = 10000
		for range n {
			r := Request{Rand: global{}, Hash: rand.Uint64(), HasHash: true}
			i, _ := before.Pick(&r)
			again, _ := before.Pick(&r)
			j, _ := after.Pick(&r)
			if i != again {
				t.Fatal("the same hash went elsewhere")
			}
			if i != j && i != 9 {
				moved++
			}
		}
		if moved > n/10 {
			t.Errorf("policy %d: %d of %d keys of other hosts moved", policy, moved, n)
		}
	}
}

func TestExcludedHostsAreAvoided(t *testing.T) {
	s := NewSet(members(1, 1, 1), Config{Policy: Random})
	got := shares(t, s, 10000, Request{Exclude: func(i int) bool { return i == 0 }, Attempts: 5})
	if got[0] > 0.02 {
		t.Errorf("%v", got)
	}
	m := members(1, 1, 1)
	m[1].Host.Begin() // the excluded one is the idlest
	m[2].Host.Begin()
	if got := shares(t, NewSet(m, Config{}), 1000, Request{Exclude: func(i int) bool { return i == 0 }}); got[0] > 0 {
		t.Errorf("the host that failed is drawn again: %v", got)
	}
	only := NewSet(members(1), Config{})
	if _, ok := only.Pick(&Request{Rand: global{}, Exclude: func(int) bool { return true }, Attempts: 5}); !ok {
		t.Error("the last choice is to be taken in any case")
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, policy := range []Policy{LeastRequest, RoundRobin, Random, RingHash, Maglev} {
		s := NewSet(members(1, 2, 3), Config{Policy: policy})
		r := Request{Rand: global{}, HasHash: true}
		if n := testing.AllocsPerRun(100, func() { s.Pick(&r) }); n != 0 {
			t.Errorf("policy %d: %v allocations", policy, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for name, policy := range map[string]Policy{"LeastRequest": LeastRequest, "RoundRobin": RoundRobin, "RingHash": RingHash} {
		b.Run(name, func(b *testing.B) {
			m := members(make([]uint32, 100)...)
			m[0].Weight = 3
			s := NewSet(m, Config{Policy: policy})
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				r := Request{Rand: global{}, HasHash: true}
				for p.Next() {
					r.Hash = rand.Uint64()
					s.Pick(&r)
				}
			})
		})
	}
}
