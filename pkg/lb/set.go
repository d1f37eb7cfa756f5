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
	shares  []share  // of the traffic; none when no host may be picked
	counts  Counts
}

// Counts of a Set's members.
type Counts struct{ Total, Healthy, Degraded int }

// picker chooses one of the eligible hosts; the result is a member's index.
type picker interface{ pick(r *Request) int }

// pool is hosts among which a choice is made: of one priority and one health, or all of a priority that is in panic.
type pool struct {
	eligible []int
	picker   picker
}

// level is one priority.
type level struct {
	all, healthy, degraded []int
	panics                 bool
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
		switch m.Health {
		case Healthy:
			l.healthy = append(l.healthy, i)
			s.counts.Healthy++
		case Degraded: // serves, and so it counts as healthy for those who look at the numbers
			l.degraded = append(l.degraded, i)
			s.counts.Healthy++
			s.counts.Degraded++
		case Unhealthy:
		}
	}
	s.distribute()
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
	if s == nil || len(s.shares) == 0 {
		return 0, false
	}
	for attempt := 0; ; attempt++ {
		p := s.pickPool(r)
		if p == nil {
			return 0, false
		}
		i := p.picker.pick(r)
		if r.Exclude == nil || !r.Exclude(i) {
			return i, true
		}
		if attempt >= max(r.Attempts, 1) {
			return p.other(r, i), true
		}
	}
}

// other is an eligible member that is not excluded, else the one that was drawn. A policy that prefers idle hosts draws one that
// fails at once again and again.
func (p *pool) other(r *Request, drawn int) int {
	start := r.Rand.Uint64()
	for n := range p.eligible {
		if i := p.eligible[(start+uint64(n))%uint64(len(p.eligible))]; !r.Exclude(i) {
			return i
		}
	}
	return drawn
}

// pickPool chooses among the priorities; nil is one without hosts that may be taken.
func (s *Set) pickPool(r *Request) *pool {
	if len(s.shares) == 1 {
		return s.shares[0].pool
	}
	n := r.Hash
	if !r.HasHash || !s.cfg.Policy.hashes() {
		n = r.Rand.Uint64()
	}
	point := uint32(n % 100)
	for i := range s.shares {
		if point < s.shares[i].end {
			return s.shares[i].pool
		}
	}
	return s.shares[len(s.shares)-1].pool
}

func (s *Set) newPool(l *level, eligible []int) *pool {
	if len(eligible) == 0 {
		return nil
	}
	p := &pool{eligible: eligible}
	switch places := s.localities(l, eligible); {
	case len(places) < 2:
		p.picker = s.newPicker(eligible, s.weights(eligible))
	case s.cfg.Policy.hashes():
		p.picker = s.newPicker(eligible, s.spread(eligible, places))
	default:
		p.picker = s.byLocality(places)
	}
	return p
}

// weights are those of the members.
func (s *Set) weights(of []int) []uint64 {
	weights := make([]uint64, len(of))
	for n, i := range of {
		weights[n] = uint64(s.members[i].Weight)
	}
	return weights
}

func (s *Set) newPicker(eligible []int, weights []uint64) picker {
	equal := true
	for _, w := range weights {
		equal = equal && w == weights[0]
	}
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
