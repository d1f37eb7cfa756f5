package lb

// share is a part of the traffic: from where the one before ends, in percent. The last one ends at 100.
type share struct {
	end  uint32
	pool *pool // nil when it has no host that may be taken
}

// distribute gives each priority as much as its healthy hosts can carry, preferring the first, then as much of the rest as the degraded
// ones can; when all priorities together cannot carry everything, those with too few hosts are in panic. This is Envoy's arithmetic, in
// whole percents, rounding included.
func (s *Set) distribute() {
	if s.counts.Total == 0 {
		return
	}
	healthy, degraded := make([]uint32, len(s.levels)), make([]uint32, len(s.levels))
	var total uint32
	for i, l := range s.levels {
		healthy[i], degraded[i] = s.carries(l.healthy, l.all), s.carries(l.degraded, l.all)
		total += healthy[i] + degraded[i]
	}
	total = min(total, 100)
	if total == 0 && s.cfg.PanicPercent == 0 {
		return
	}
	panics := true
	for _, l := range s.levels {
		l.panics = total < 100 && s.inPanic(l)
		panics = panics && l.panics
	}
	switch {
	case panics:
		s.distributeInPanic()
	case total > 0:
		s.distributeByHealth(healthy, degraded, total)
	}
}

// carries is how much of everything the hosts of a priority can take, in percent.
func (s *Set) carries(some, all []int) uint32 {
	part, whole := uint64(len(some)), uint64(len(all))
	if s.cfg.WeightedHealth {
		part, whole = s.sum(some), s.sum(all)
	}
	if whole == 0 {
		return 0
	}
	return uint32(min(100, uint64(s.cfg.Overprovisioning)*part/whole))
}

func (s *Set) sum(of []int) (sum uint64) {
	for _, i := range of {
		sum += uint64(s.members[i].Weight)
	}
	return sum
}

func (s *Set) inPanic(l *level) bool {
	return len(l.all) == 0 && s.cfg.PanicPercent > 0 ||
		len(l.all) > 0 && 100*float64(len(l.healthy)+len(l.degraded))/float64(len(l.all)) < s.cfg.PanicPercent
}

func (s *Set) distributeByHealth(healthy, degraded []uint32, total uint32) {
	shares := make([]uint32, 2*len(s.levels))
	left, first := uint32(100), -1
	for i, available := range append(healthy, degraded...) {
		if available > 0 && first < 0 {
			first = i
		}
		shares[i] = min(left, available*100/total)
		left -= shares[i]
	}
	shares[first] += left // what rounding left over
	s.cumulate(shares, func(i int) *pool {
		if i >= len(s.levels) {
			l := s.levels[i-len(s.levels)]
			return s.pool(l, l.degraded)
		}
		return s.pool(s.levels[i], s.levels[i].healthy)
	})
}

// pool is that of some of a priority's hosts, or of all of them while it is in panic.
func (s *Set) pool(l *level, some []int) *pool {
	switch {
	case !l.panics:
		return s.newPool(l, some)
	case s.cfg.FailInPanic:
		return nil
	}
	return s.anyOf(l)
}

// anyOf ignores health, and with it the weights of localities.
func (s *Set) anyOf(l *level) *pool {
	if len(l.all) == 0 {
		return nil
	}
	return &pool{eligible: l.all, picker: s.newPicker(l.all, s.weights(l.all))}
}

// distributeInPanic is for when every priority is in panic: by the number of their hosts.
func (s *Set) distributeInPanic() {
	shares := make([]uint32, len(s.levels))
	left, first := uint32(100), -1
	for i, l := range s.levels {
		if len(l.all) > 0 && first < 0 {
			first = i
		}
		shares[i] = uint32(100 * len(l.all) / s.counts.Total)
		left -= shares[i]
	}
	shares[first] += left
	s.cumulate(shares, func(i int) *pool {
		if s.cfg.FailInPanic {
			return nil
		}
		return s.anyOf(s.levels[i])
	})
}

func (s *Set) cumulate(shares []uint32, pool func(i int) *pool) {
	end := uint32(0)
	for i, n := range shares {
		if n > 0 {
			end += n
			s.shares = append(s.shares, share{end: end, pool: pool(i)})
		}
	}
}
