package coll

import "slices"

// reader is one input of one derived collection, as what it has read knows it. All of this file is guarded by Graph.mu.
type reader struct {
	of   invalidator
	key  string // of the input
	uses []use
	// stale says that the input is to be computed again already.
	stale bool
}

type invalidator interface{ invalidate(inputKey string) }

func (r *reader) invalidate() {
	if !r.stale {
		r.stale = true
		r.of.invalidate(r.key)
	}
}

// use is one thing that a reader has read, and its place among those who have. The two find each other by these places, so that
// taking one out costs the same however many there are.
type use struct {
	of *readers
	at int32 // in of.members
}

// readers are those who have read one thing.
type readers struct {
	members []member
	// left is called for each reader that leaves, when it has left.
	left func(*reader)
}

type member struct {
	*reader
	at int32 // in reader.uses
}

func (s *readers) invalidate() {
	if s == nil {
		return
	}
	for _, m := range s.members {
		m.invalidate()
	}
}

// keyed returns the readers of a key, made when there are none: they are gone from the table with the last of them.
func keyed[K comparable](table map[K]*readers, k K) *readers {
	s := table[k]
	if s == nil {
		s = &readers{}
		s.left = func(*reader) {
			if len(s.members) == 0 {
				delete(table, k)
			}
		}
		table[k] = s
	}
	return s
}

// fewUses is up to how many are searched one by one.
const fewUses = 16

// setUses makes r a reader of exactly now, each of which is in it once. What stays is not touched: most often, all of it.
func (r *reader) setUses(now []*readers) {
	had, has := func(s *readers) bool { return r.find(s) >= 0 }, func(s *readers) bool { return slices.Contains(now, s) }
	if len(r.uses) > fewUses || len(now) > fewUses {
		before, after := map[*readers]struct{}{}, map[*readers]struct{}{}
		for _, u := range r.uses {
			before[u.of] = struct{}{}
		}
		for _, s := range now {
			after[s] = struct{}{}
		}
		had, has = in(before), in(after)
	}
	// What is new first: something that nobody reads is gone from its table, hence it must not lose its last reader now.
	for _, s := range now {
		if !had(s) {
			r.join(s, len(now))
		}
	}
	for i := len(r.uses) - 1; i >= 0; i-- {
		if !has(r.uses[i].of) {
			r.leave(i)
		}
	}
}

func in(set map[*readers]struct{}) func(*readers) bool {
	return func(s *readers) bool { _, ok := set[s]; return ok }
}

func (r *reader) find(s *readers) int {
	return slices.IndexFunc(r.uses, func(u use) bool { return u.of == s })
}

// join appends a use. size is how many there will be.
func (r *reader) join(s *readers, size int) {
	if r.uses == nil {
		r.uses = make([]use, 0, size)
	}
	r.uses = append(r.uses, use{s, int32(len(s.members))})
	s.members = append(s.members, member{r, int32(len(r.uses) - 1)})
}

// leave takes the use at i out: the last one takes its place, on both sides.
func (r *reader) leave(i int) {
	u := r.uses[i]
	last := len(u.of.members) - 1
	moved := u.of.members[last]
	u.of.members[u.at] = moved
	moved.uses[moved.at].at = u.at
	u.of.members[last] = member{}
	u.of.members = u.of.members[:last]

	end := len(r.uses) - 1
	other := r.uses[end]
	r.uses[i] = other
	if i != end {
		other.of.members[other.at].at = int32(i)
	}
	r.uses[end] = use{}
	r.uses = r.uses[:end]
	if u.of.left != nil {
		u.of.left(r)
	}
}
