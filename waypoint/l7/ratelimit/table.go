package ratelimit

import (
	"hash/maphash"
	"sync"
)

// table has a bucket for each combination of values, the last used ones. It is divided, so that requests of different clients seldom
// meet at a lock.
type table struct {
	seed  maphash.Seed
	parts []part
}

// part is a share of a table. All fields are guarded by mu.
type part struct {
	mu     sync.Mutex
	limit  int
	known  map[string]*entry
	recent entry // of a ring: next is the last used one, before the one to be forgotten first
}

type entry struct {
	bucket
	key          string
	next, before *entry
}

// smallPart is how many entries a part has at least: below that an even division would forget entries too early.
const smallPart = 64

func newTable(limit int) *table {
	n := 1
	for n < 16 && limit/(2*n) >= smallPart {
		n *= 2
	}
	t := &table{seed: maphash.MakeSeed(), parts: make([]part, n)}
	for i := range t.parts {
		p := &t.parts[i]
		p.limit, p.known = (limit+n-1)/n, map[string]*entry{}
		p.recent.next, p.recent.before = &p.recent, &p.recent
	}
	return t
}

// bucket finds the bucket of a key, or makes it.
func (t *table) bucket(key []byte) *bucket {
	p := &t.parts[0]
	if len(t.parts) > 1 {
		p = &t.parts[maphash.Bytes(t.seed, key)&uint64(len(t.parts)-1)]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.known[string(key)]
	switch {
	case e == nil:
		e = &entry{key: string(key)}
		if len(p.known) >= p.limit {
			oldest := p.recent.before
			oldest.unlink()
			delete(p.known, oldest.key)
		}
		p.known[e.key] = e
	case p.recent.next == e:
		return &e.bucket
	default:
		e.unlink()
	}
	e.next, e.before = p.recent.next, &p.recent
	e.next.before, p.recent.next = e, e
	return &e.bucket
}

func (e *entry) unlink() { e.before.next, e.next.before = e.next, e.before }

// size is how many keys are known.
func (t *table) size() (n int) {
	for i := range t.parts {
		t.parts[i].mu.Lock()
		n += len(t.parts[i].known)
		t.parts[i].mu.Unlock()
	}
	return n
}
