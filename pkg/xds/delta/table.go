package delta

import (
	"maps"
	"slices"
)

// Table is the current state of one resource type on a server. Each Publish moves its sequence number; a stream that has
// everything up to a number gets what changed since, as newest state, however many changes that were. The cost of a change
// does not depend on the size of the table.
type Table struct {
	seq     uint64
	entries map[string]*Entry
	keys    map[string]map[string]struct{} // alias or group → names; nil until somebody looks for one
	log     []change                       // in order of seq; compacted now and then
	compact int                            // length of the log that makes it worth compacting
	since   map[uint64]*Batch              // what a wildcard stream at a number lacks; valid for the current seq
}

type change struct {
	seq  uint64
	name string
	// entry before the change: it says who had been interested in a resource that is gone or has lost a key
	before *Entry
}

// minCompact is the length below which compacting a log is not worth the while.
const minCompact = 1024

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{seq: 1, entries: map[string]*Entry{}, compact: minCompact, since: map[uint64]*Batch{}}
}

// Seq is the number of the last change. It is never 0, which stands for a stream that has nothing.
func (t *Table) Seq() uint64 { return t.seq }

// Len returns the number of resources.
func (t *Table) Len() int { return len(t.entries) }

// Get returns a resource.
func (t *Table) Get(name string) (*Entry, bool) {
	e, ok := t.entries[name]
	return e, ok
}

// All returns every resource, ordered by name.
func (t *Table) All() []*Entry {
	out := make([]*Entry, 0, len(t.entries))
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		out = append(out, t.entries[name])
	}
	return out
}

// Publish applies one change and returns the keys (names, and aliases and groups once somebody has looked for one) whose subscribers
// it concerns. Removing what is not there changes nothing.
func (t *Table) Publish(changed []Resource, removed []string) (concerned map[string]struct{}) {
	concerned = map[string]struct{}{}
	seq := t.seq + 1
	for _, r := range changed {
		t.replace(r.Name, newEntry(r), seq, concerned)
	}
	for _, name := range removed {
		if _, ok := t.entries[name]; ok {
			t.replace(name, nil, seq, concerned)
		}
	}
	if len(concerned) > 0 {
		t.seq = seq
		clear(t.since)
	}
	return concerned
}

func (t *Table) replace(name string, now *Entry, seq uint64, concerned map[string]struct{}) {
	before := t.entries[name]
	t.log = append(t.log, change{seq, name, before})
	concerned[name] = struct{}{}
	if before != nil {
		delete(t.entries, name)
		t.unindex(before, concerned)
	}
	if now != nil {
		t.entries[name] = now
		t.index(now, concerned)
	}
}

// index makes an entry known by its keys, which it adds to concerned. Clients that subscribe to everything, as most do, need none of
// that: there are keys only from the first search for one.
func (t *Table) index(e *Entry, concerned map[string]struct{}) {
	if t.keys == nil {
		return
	}
	for k := range e.secondary {
		concerned[k] = struct{}{}
		if t.keys[k] == nil {
			t.keys[k] = map[string]struct{}{}
		}
		t.keys[k][e.Name] = struct{}{}
	}
}

func (t *Table) unindex(e *Entry, concerned map[string]struct{}) {
	if t.keys == nil {
		return
	}
	for k := range e.secondary {
		concerned[k] = struct{}{}
		if delete(t.keys[k], e.Name); len(t.keys[k]) == 0 {
			delete(t.keys, k)
		}
	}
}

// named returns the names of the resources that have a key.
func (t *Table) named(key string) map[string]struct{} {
	if t.keys == nil {
		t.keys = map[string]map[string]struct{}{}
		concerned := map[string]struct{}{}
		for _, e := range t.entries {
			t.index(e, concerned)
		}
	}
	return t.keys[key]
}

// Since returns what a wildcard stream lacks that has everything up to seq (0: nothing). All streams at the same number get
// the same batch.
func (t *Table) Since(seq uint64) *Batch {
	if b := t.since[seq]; b != nil {
		return b
	}
	b := &Batch{}
	if seq == 0 {
		b.Entries = t.All()
	} else {
		for _, name := range t.changedSince(seq) {
			if e := t.entries[name]; e != nil {
				b.Entries = append(b.Entries, e)
			} else {
				b.Removed = append(b.Removed, name)
			}
		}
	}
	t.since[seq] = b
	return b
}

// changes returns the log after seq.
func (t *Table) changes(seq uint64) []change {
	at, _ := slices.BinarySearchFunc(t.log, seq+1, func(c change, seq uint64) int {
		switch {
		case c.seq < seq:
			return -1
		case c.seq > seq:
			return 1
		}
		return 0
	})
	return t.log[at:]
}

func (t *Table) changedSince(seq uint64) []string {
	changes := t.changes(seq)
	names := make([]string, 0, len(changes))
	for _, c := range changes {
		names = append(names, c.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Trim forgets changes that every stream has, oldest being the smallest number of any stream. Call NeedsTrim first, which
// is cheap. What is kept is bounded by the changes a stream has still to get.
func (t *Table) Trim(oldest uint64) {
	kept := t.changes(oldest)
	t.log = slices.Clone(kept)
	t.compact = max(minCompact, 2*len(t.log))
}

// NeedsTrim reports whether the log has grown enough for Trim to be worth it.
func (t *Table) NeedsTrim() bool { return len(t.log) >= t.compact }

// Lookup returns the resources that are meant by a key, on demand: the one of that name or those with that alias, and with
// each of them all that have it as their group. The order is by name.
func (t *Table) Lookup(key string) []*Entry {
	found := map[string]*Entry{}
	if e := t.entries[key]; e != nil {
		t.collect(e, found)
	}
	for name := range t.named(key) {
		t.collect(t.entries[name], found)
	}
	out := make([]*Entry, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[name])
	}
	return out
}

// has reports whether a key is the name or an alias of a resource. A group that is no resource itself does not count.
func (t *Table) has(key string) bool {
	if t.entries[key] != nil {
		return true
	}
	for name := range t.named(key) {
		if slices.Contains(t.entries[name].aliases, key) {
			return true
		}
	}
	return false
}

func (t *Table) collect(e *Entry, into map[string]*Entry) {
	into[e.Name] = e
	for name := range t.named(e.Name) {
		into[name] = t.entries[name]
	}
}
