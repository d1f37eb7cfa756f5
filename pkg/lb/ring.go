package lb

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// ring is consistent hashing: each host owns points on a circle, by weight; a request goes to the next point.
type ring struct {
	*random // for requests without a hash
	points  []point
}

type point struct {
	hash   uint64
	member int
}

// newRing scales the ring such that the lightest host has a whole number of points, within the bounds.
func (s *Set) newRing(base *random, weights []uint64) picker {
	shares := normalized(weights)
	least := 1.0
	for _, share := range shares {
		if share > 0 {
			least = min(least, share)
		}
	}
	scale := min(math.Ceil(least*float64(s.cfg.MinRing))/least, float64(s.cfg.MaxRing))
	r := &ring{random: base, points: make([]point, 0, int(math.Ceil(scale)))}
	var have, want float64
	for n, i := range base.members {
		key := append([]byte(s.members[i].HashKey), '_')
		want += scale * shares[n]
		for k := 0; have < want; k++ {
			r.points = append(r.points, point{hash: xxhash.Sum64(strconv.AppendInt(key, int64(k), 10)), member: i})
			have++
		}
	}
	slices.SortFunc(r.points, func(a, b point) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return 0
	})
	return r
}

func (r *ring) pick(req *Request) int {
	if !req.HasHash {
		return r.random.pick(req)
	}
	i := sort.Search(len(r.points), func(i int) bool { return r.points[i].hash >= req.Hash })
	if i == len(r.points) {
		i = 0
	}
	return r.points[i].member
}

func normalized(weights []uint64) []float64 {
	var sum float64
	for _, w := range weights {
		sum += float64(w)
	}
	shares := make([]float64, len(weights))
	for i, w := range weights {
		shares[i] = float64(w) / sum
	}
	return shares
}

// maglev is a table in which each host fills entries in an order of its own, by weight.
type maglev struct {
	*random // for requests without a hash
	table   []int32
}

func (s *Set) newMaglev(base *random, weights []uint64) picker {
	size := s.cfg.TableSize
	type row struct{ offset, skip, next, weight, target float64 }
	rows := make([]row, len(base.members))
	shares := normalized(weights)
	heaviest := slices.Max(shares)
	for n, i := range base.members {
		hash := xxhash.Sum64String(s.members[i].HashKey)
		second := xxhash.Sum64String(s.members[i].HashKey + "\x00")
		rows[n] = row{offset: float64(hash % size), skip: float64(second%(size-1) + 1), weight: shares[n]}
	}
	m := &maglev{random: base, table: make([]int32, size)}
	for i := range m.table {
		m.table[i] = -1
	}
	for filled := uint64(0); filled < size; {
		for n := range rows {
			r := &rows[n]
			// A host takes its turn as often as its weight relative to the heaviest.
			r.target += r.weight
			if r.target < heaviest {
				continue
			}
			r.target -= heaviest
			for {
				at := (uint64(r.offset) + uint64(r.skip)*uint64(r.next)) % size
				r.next++
				if m.table[at] < 0 {
					m.table[at] = int32(base.members[n])
					filled++
					break
				}
			}
			if filled == size {
				break
			}
		}
	}
	return m
}

func (m *maglev) pick(req *Request) int {
	if !req.HasHash {
		return m.random.pick(req)
	}
	return int(m.table[req.Hash%uint64(len(m.table))])
}
