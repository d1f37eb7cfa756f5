package coll

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
)

// mirror follows a collection by its events alone, and fails on one that does not fit what came before.
func mirror(t *testing.T, c Collection[int]) map[string]int {
	t.Helper()
	state := map[string]int{}
	c.Register(func(events []Event[int]) {
		for _, e := range events {
			before, had := state[e.Key]
			if had != (e.Old != nil) || had && before != *e.Old || e.Old == nil && e.New == nil {
				t.Errorf("%s: event %s of %s: before it there was %d, %v", c.Name(), e.Kind, e.Key, before, had)
			}
			if e.New == nil {
				delete(state, e.Key)
			} else {
				state[e.Key] = *e.New
			}
		}
	})
	return state
}

// TestRandomChanges compares collections with what they are by definition, after any number of changes to several sources at once.
func TestRandomChanges(t *testing.T) {
	const keys, rounds = 8, 3000
	random := rand.New(rand.NewPCG(1, 2))
	g := NewGraph()
	name := func(i int) string { return "k" + strconv.Itoa(i) }
	type entry struct {
		key   string
		value int
	}
	var sources []*Static[entry]
	var numbers []Collection[int]
	for i := range 3 {
		s := NewStatic(g, fmt.Sprintf("source %d", i), func(e entry) string { return e.key })
		sources = append(sources, s)
	}
	keyOf := map[int]string{} // values are unique to keys: the key of a collection of numbers is found by its number
	number := func(s *Static[entry], name string) Collection[int] {
		return Map(name, s, func(v int) string { return keyOf[v] }, func(_ Fetch, e entry) (int, bool) { return e.value, true })
	}
	for v := range keys * 4 {
		keyOf[v] = name(v / 4)
	}
	for i, s := range sources {
		numbers = append(numbers, number(s, fmt.Sprintf("numbers %d", i)))
	}
	inner := Join("inner", numbers[0], numbers[1])
	outer := Join("outer", inner, numbers[2])
	// Each input makes one output, by its value alone: inputs compete for it. What it reads changes too.
	mod := NewIndex(outer, func(v int) []int { return []int{v % 4} })
	shared := Map("shared", sources[0], func(v int) string { return strconv.Itoa(v % 3) }, func(f Fetch, e entry) (int, bool) {
		sum := e.value % 3
		for _, v := range FetchIndex(f, mod, e.value%4) {
			sum += 3 * v
		}
		if v, ok := FetchOne(f, outer, name(e.value%keys)); ok {
			sum += 3 * v
		}
		return sum, sum%2 == 0
	})
	follow := map[Collection[int]]map[string]int{}
	for _, c := range []Collection[int]{inner, outer, shared} {
		follow[c] = mirror(t, c)
	}
	state := make([]map[string]int, len(sources))
	for i := range state {
		state[i] = map[string]int{}
	}
	for round := range rounds {
		for range 1 + random.IntN(4) {
			i, k := random.IntN(len(sources)), random.IntN(keys)
			if random.IntN(3) == 0 {
				sources[i].Stage(nil, []string{name(k)})
				delete(state[i], name(k))
				continue
			}
			v := k*4 + random.IntN(4)
			sources[i].Stage([]entry{{name(k), v}}, nil)
			state[i][name(k)] = v
		}
		g.Flush()
		union := func(parts ...map[string]int) map[string]int {
			out := map[string]int{}
			for _, p := range slices.Backward(parts) {
				maps.Copy(out, p)
			}
			return out
		}
		want := map[Collection[int]]map[string]int{inner: union(state[0], state[1]), outer: union(state...), shared: {}}
		for _, k := range slices.Backward(slices.Sorted(maps.Keys(state[0]))) {
			v := state[0][k]
			sum := v % 3
			for _, other := range want[outer] {
				if other%4 == v%4 {
					sum += 3 * other
				}
			}
			if other, ok := want[outer][name(v%keys)]; ok {
				sum += 3 * other
			}
			if sum%2 == 0 {
				want[shared][strconv.Itoa(sum%3)] = sum
			}
		}
		for c, w := range want {
			got := map[string]int{}
			for _, k := range slices.Sorted(maps.Keys(w)) {
				if v, ok := c.Get(k); ok {
					got[k] = v
				}
			}
			if !maps.Equal(got, w) || c.Len() != len(w) || len(c.List()) != len(w) {
				t.Fatalf("round %d: %s is %v, want %v", round, c.Name(), c.List(), w)
			}
			if !maps.Equal(follow[c], w) {
				t.Fatalf("round %d: events of %s lead to %v, want %v", round, c.Name(), follow[c], w)
			}
		}
	}
}

// TestReadersAreReleased holds that what nobody reads any more costs nothing.
func TestReadersAreReleased(t *testing.T) {
	g := NewGraph()
	in := NewStatic(g, "in", func(v int) string { return strconv.Itoa(v % 100) })
	read := NewStatic(g, "read", strconv.Itoa)
	odd := NewIndex(read, func(v int) []bool { return []bool{v%2 == 1} })
	d := Map("sum", in, strconv.Itoa, func(f Fetch, v int) (int, bool) {
		for i := range v / 100 {
			FetchOne(f, read, strconv.Itoa(i))
		}
		FetchIndex(f, odd, v%2 == 1)
		if v%5 == 0 {
			FetchAll(f, read, func(i int) bool { return i > v })
			FetchAll(f, read)
		}
		return v, true
	})
	for _, size := range []int{0, 3, 40, 2, 17, 16, 1, 25} { // how many are read, few or many
		for i := range 20 {
			in.Stage([]int{100*size + i}, nil)
		}
		g.Flush()
		s := read.base()
		if len(s.readers) != size || len(s.filters) != 4 || len(s.scanners.members) != 4 || len(odd.index().readers) != 2 {
			t.Fatalf("%d: %d keys, %d filters, %d scanners, %d index keys", size, len(s.readers), len(s.filters), len(s.scanners.members), len(odd.index().readers))
		}
		for k, r := range s.readers {
			if len(r.members) != 20 {
				t.Fatalf("%d readers of %s", len(r.members), k)
			}
		}
	}
	in.Reset(nil)
	if s := read.base(); d.Len() != 0 || len(s.readers)+len(s.filters)+len(s.scanners.members)+len(odd.index().readers) != 0 {
		t.Fatalf("left: %d keys, %d filters, %d scanners, %d index keys", len(s.readers), len(s.filters), len(s.scanners.members), len(odd.index().readers))
	}
}

// BenchmarkMemory is what one input of a derived collection that reads three things keeps, and what it is joined with.
func BenchmarkMemory(b *testing.B) {
	const n = 20000
	for b.Loop() {
		g := NewGraph()
		in := NewStatic(g, "in", strconv.Itoa)
		read := NewStatic(g, "read", strconv.Itoa)
		d := Map("derived", in, strconv.Itoa, func(f Fetch, v int) (int, bool) {
			for i := range 3 {
				FetchOne(f, read, strconv.Itoa((v+i)%100))
			}
			return v, true
		})
		j := Join("joined", d, Map("other", read, strconv.Itoa, func(_ Fetch, v int) (int, bool) { return v, true }))
		before := heapInUse()
		for i := range n {
			in.Stage([]int{i}, nil)
		}
		g.Flush()
		b.ReportMetric((heapInUse()-before)/n, "B/input")
		if j.Len() != n {
			b.Fatal(j.Len())
		}
	}
}

func heapInUse() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
