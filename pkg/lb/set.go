package lb

import "slices"

// Request is what a choice depends on.
type Request struct {
	Rand Rand
	// Hash is where a hashing policy looks when HasHash is set; without it they choose at random.
	Hash    uint64
	HasHash bool
	// Exclude, if not nil, tells hosts that should rather not be taken again: those of the attempts before. Up to Attempts choices
	// (default 1) are thrown away for it; then any other host that is eligible is taken, and an excluded one only if there is no other.
	Exclude  func(member int) bool
	Attempts int
}

// Set is the hosts of a cluster, immutable.
type Set struct {
	members []Member
	cfg     Config
	levels  []*level // by priority
	loads   []uint32 // percent of the traffic per level, ends at 100; nil when no host may be picked
	counts  Counts
}

// Counts of a Set's members.
type Counts struct{ Total, Healthy, Degraded int }

// picker chooses one of the eligible hosts; the result is a member's index.
type picker interface{ pick(r *Request) int }

// level is one priority.
type level struct {
	all, healthy []int
	eligible     []int // of which the picker chooses
	panics       bool
	picker       picker // over what is eligible; nil when nothing is
}

// NewSet makes a Set of the members, whose order is kept: Pick returns an index of it.
func NewSet(members []Member, cfg Config) *Set {
	s := &Set{members: slices.Clone(members), cfg: cfg.withDefaults()}
	for i := range s.members {
		m := &s.members[i]
		m.Weight = max(m.Weight, 1)
		for int(m.Priority) >= len(s.levels) {
			s.levels = append(s.levels, &level{})
		}
		l := s.levels[m.Priority]
		l.all = append(l.all, i)
		s.counts.Total++
		if m.Health != Unhealthy {
			l.healthy = append(l.healthy, i)
			s.counts.Healthy++
		}
		if m.Health == Degraded {
			s.counts.Degraded++
		}
	}
	s.distribute()
	for i, l := range s.levels {
		if s.share(i) == 0 {
			continue
		}
		eligible := l.healthy
		if l.panics {
			if s.cfg.FailInPanic {
				continue
			}
			eligible = l.all
		}
		if len(eligible) > 0 {
			l.eligible, l.picker = eligible, s.newPicker(eligible)
		}
	}
	return s
}

// Len is how many members there are.
func (s *Set) Len() int { return len(s.members) }

// Counts tells how many members are in which health.
func (s *Set) Counts() Counts { return s.counts }

// Member returns one member.
func (s *Set) Member(i int) *Member { return &s.members[i] }

// Pick chooses a host, or none when no host may be taken.
func (s *Set) Pick(r *Request) (member int, ok bool) {
	if s == nil || len(s.loads) == 0 {
		return 0, false
	}
	for attempt := 0; ; attempt++ {
		l := s.levels[s.pickLevel(r)]
		if l.picker == nil {
			return 0, false
		}
		i := l.picker.pick(r)
		if r.Exclude == nil || !r.Exclude(i) {
			return i, true
		}
		if attempt >= max(r.Attempts, 1) {
			return l.other(r, i), true
		}
	}
}

// other is an eligible member that is not excluded, else the one that was drawn. A policy that prefers idle hosts draws one that
// fails at once again and again.
func (l *level) other(r *Request, drawn int) int {
	start := r.Rand.Uint64()
	for n := range l.eligible {
		if i := l.eligible[(start+uint64(n))%uint64(len(l.eligible))]; !r.Exclude(i) {
			return i
		}
	}
	return drawn
}

func (s *Set) pickLevel(r *Request) int {
	if s.loads[0] == 100 {
		return 0
	}
	n := r.Hash
	if !r.HasHash {
		n = r.Rand.Uint64()
	}
	point := uint32(n % 100)
	for i, end := range s.loads {
		if point < end {
			return i
		}
	}
	return len(s.loads) - 1
}

// share is a level's part of the traffic in percent.
func (s *Set) share(i int) uint32 {
	if len(s.loads) == 0 {
		return 0
	}
	if i == 0 {
		return s.loads[0]
	}
	return s.loads[i] - s.loads[i-1]
}

// distribute gives each level as much as its healthy hosts can carry, preferring the first, and decides which levels are
// in panic: only when all levels together cannot carry everything.
func (s *Set) distribute() {
	if s.counts.Total == 0 {
		return
	}
	healths := make([]uint32, len(s.levels))
	var total uint32
	for i, l := range s.levels {
		if len(l.all) > 0 {
			healths[i] = uint32(min(100, uint64(s.cfg.Overprovisioning)*uint64(len(l.healthy))/uint64(len(l.all))))
		}
		total += healths[i]
	}
	if total == 0 {
		s.distributeInPanic()
		return
	}
	normalized := min(total, 100)
	shares := make([]uint32, len(s.levels))
	left := uint32(100)
	first := -1
	for i, l := range s.levels {
		if healths[i] > 0 && first < 0 {
			first = i
		}
		shares[i] = min(left, healths[i]*100/normalized)
		left -= shares[i]
		l.panics = normalized < 100 && s.inPanic(l)
	}
	shares[first] += left // what rounding left over
	s.cumulate(shares)
}

// distributeInPanic is for when no host is healthy: all levels by the number of their hosts.
func (s *Set) distributeInPanic() {
	if s.cfg.PanicPercent == 0 {
		return
	}
	shares := make([]uint32, len(s.levels))
	left := uint32(100)
	last := 0
	for i, l := range s.levels {
		l.panics = true
		shares[i] = uint32(100 * len(l.all) / s.counts.Total)
		left -= shares[i]
		if len(l.all) > 0 {
			last = i
		}
	}
	shares[last] += left
	s.cumulate(shares)
}

func (s *Set) inPanic(l *level) bool {
	return len(l.all) > 0 && 100*float64(len(l.healthy))/float64(len(l.all)) < s.cfg.PanicPercent
}

func (s *Set) cumulate(shares []uint32) {
	s.loads = shares
	for i := 1; i < len(shares); i++ {
		s.loads[i] += s.loads[i-1]
	}
}

// weights are those of the eligible members, with the localities' multiplied in where the configuration asks for it.
func (s *Set) weights(eligible []int) (weights []uint64, equal bool) {
	weights = make([]uint64, len(eligible))
	sums := map[string]uint64{}
	if s.cfg.LocalityWeighted {
		for _, i := range eligible {
			sums[s.members[i].Locality] += uint64(s.members[i].Weight)
		}
	}
	equal = true
	for n, i := range eligible {
		m := &s.members[i]
		weights[n] = uint64(m.Weight)
		if s.cfg.LocalityWeighted {
			// A fixed point share of the locality's weight; a locality of weight 0 gets nothing.
			weights[n] = uint64(m.LocalityWeight) * uint64(m.Weight) << 16 / sums[m.Locality]
		}
		equal = equal && weights[n] == weights[0]
	}
	if equal && len(weights) > 0 && weights[0] == 0 {
		for n := range weights {
			weights[n] = 1
		}
	}
	return weights, equal
}

func (s *Set) newPicker(eligible []int) picker {
	weights, equal := s.weights(eligible)
	base := &random{members: eligible}
	if !equal {
		base.ends = cumulative(weights)
	}
	if len(eligible) == 1 {
		return base
	}
	switch s.cfg.Policy {
	case RoundRobin:
		return newRoundRobin(eligible, weights, equal)
	case Random:
		return base
	case RingHash:
		return s.newRing(base, weights)
	case Maglev:
		return s.newMaglev(base, weights)
	case LeastRequest:
	}
	l := &leastRequest{random: base, set: s}
	if !equal {
		l.weights = weights
	}
	return l
}
