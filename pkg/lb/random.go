package lb

import "sort"

// random chooses by weight.
type random struct {
	members []int
	ends    []uint64 // of the intervals of members, or nil when all weigh the same
}

func cumulative(weights []uint64) []uint64 {
	ends := make([]uint64, len(weights))
	var sum uint64
	for i, w := range weights {
		sum += w
		ends[i] = sum
	}
	return ends
}

func (r *random) pick(req *Request) int { return r.members[r.position(req.Rand)] }

func (r *random) position(rnd Rand) int {
	if len(r.members) == 1 {
		return 0
	}
	n := rnd.Uint64()
	if r.ends == nil {
		return int(n % uint64(len(r.members)))
	}
	point := n % r.ends[len(r.ends)-1]
	return sort.Search(len(r.ends), func(i int) bool { return r.ends[i] > point })
}

// leastRequest takes the least loaded of a few random choices; load is relative to weight.
type leastRequest struct {
	*random
	set     *Set
	weights []uint64 // by position; nil when all weigh the same
}

func (l *leastRequest) pick(r *Request) int {
	best := l.position(r.Rand)
	load := l.set.members[l.members[best]].Host.Active()
	for range l.set.cfg.Choices - 1 {
		other := l.position(r.Rand)
		if other == best {
			continue
		}
		active := l.set.members[l.members[other]].Host.Active()
		// A tie is for the first choice, so that idle hosts are chosen by weight alone.
		if l.weights == nil && active < load || l.weights != nil && uint64(active)*l.weights[best] < uint64(load)*l.weights[other] {
			best, load = other, active
		}
	}
	return l.members[best]
}
