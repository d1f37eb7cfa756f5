package lb

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// place is a locality of a pool.
type place struct {
	name    string
	members []int
	weight  uint64 // by the share of its hosts that can be taken; in 16 bit fixed point
}

// localities are those with a weight that have eligible hosts, in the order of their first ones; none when weights of localities do not
// count, or nobody has any.
func (s *Set) localities(l *level, eligible []int) []place {
	if !s.cfg.LocalityWeighted {
		return nil
	}
	total := map[string]uint64{}
	for _, i := range l.all {
		total[s.members[i].Locality]++
	}
	var out []place
	for _, i := range eligible {
		m := &s.members[i]
		if m.LocalityWeight == 0 {
			continue
		}
		at := slices.IndexFunc(out, func(p place) bool { return p.name == m.Locality })
		if at < 0 {
			at = len(out)
			out = append(out, place{name: m.Locality, weight: uint64(m.LocalityWeight)})
		}
		out[at].members = append(out[at].members, i)
	}
	for i := range out {
		// A locality that has lost some of its hosts can still carry its share, up to a point.
		capacity := min(1, float64(s.cfg.Overprovisioning)/100*float64(len(out[i].members))/float64(total[out[i].name]))
		out[i].weight = max(1, uint64(float64(out[i].weight<<16)*capacity))
	}
	if len(out) == 1 && len(out[0].members) < len(eligible) { // the others have no weight
		return []place{out[0], {}}
	}
	return out
}

// spread is the weights of members within those of their localities, for policies that lay all hosts out at once.
func (s *Set) spread(eligible []int, places []place) []uint64 {
	weights := make([]uint64, len(eligible))
	at := make(map[int]int, len(eligible))
	for n, i := range eligible {
		at[i] = n
	}
	for _, p := range places {
		sum := s.sum(p.members)
		for _, i := range p.members {
			high, low := bits.Mul64(p.weight<<8, uint64(s.members[i].Weight))
			weights[at[i]], _ = bits.Div64(high%sum, low, sum)
		}
	}
	return weights
}

// byLocality chooses a locality by weight and then one of its hosts by the policy.
type byLocality struct {
	ends    []uint64 // of the localities' intervals
	pickers []picker
	turn    atomic.Uint64
}

func (s *Set) byLocality(places []place) picker {
	b := &byLocality{}
	var weights []uint64
	for _, p := range places {
		if p.weight == 0 {
			continue
		}
		weights = append(weights, p.weight)
		b.pickers = append(b.pickers, s.newPicker(p.members, s.weights(p.members)))
	}
	if len(b.pickers) == 1 {
		return b.pickers[0]
	}
	b.ends = cumulative(weights)
	return b
}

// golden is the fractional part of the golden ratio: its multiples fall as evenly as can be, so that also few requests are spread by
// weight, without a lock.
const golden = 0x9E3779B97F4A7C15

func (b *byLocality) pick(r *Request) int {
	turn := b.turn.Add(golden)
	if turn == golden { // the first one: proxies that have got the same hosts should not all begin alike
		turn = b.turn.Add(r.Rand.Uint64() &^ 1)
	}
	point, _ := bits.Mul64(turn, b.ends[len(b.ends)-1])
	i, _ := slices.BinarySearch(b.ends, point+1)
	return b.pickers[i].pick(r)
}
