package coll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// item is what the suite's collections hold: keyed by name.
type item struct{ Name, Value string }

func itemKey(i item) string { return i.Name }

// rig is one kind of collection under test: whatever is put into source shall come out of it unchanged.
type rig struct {
	graph  *Graph
	source *Static[item]
	out    Collection[item]
}

// kinds are all the ways to make a collection. Each must pass every test below.
func kinds() map[string]func() rig {
	source := func() (*Graph, *Static[item]) {
		g := NewGraph()
		return g, NewStatic(g, "source", itemKey)
	}
	return map[string]func() rig{
		"Static": func() rig { g, s := source(); return rig{g, s, s} },
		"Map": func() rig {
			g, s := source()
			return rig{g, s, Map("map", s, itemKey, func(_ Fetch, i item) (item, bool) { return i, true })}
		},
		"FlatMap": func() rig {
			g, s := source()
			return rig{g, s, FlatMap("flatmap", s, itemKey, func(_ Fetch, i item) []item { return []item{i, i} })}
		},
		"Map that fetches one": func() rig {
			g, s := source()
			return rig{g, s, Map("fetch", s, itemKey, func(f Fetch, i item) (item, bool) { return FetchOne(f, s, i.Name) })}
		},
		"Map that fetches an index": func() rig {
			g, s := source()
			x := NewIndex(s, func(i item) []string { return []string{i.Name} })
			return rig{g, s, Map("fetch", s, itemKey, func(f Fetch, i item) (item, bool) { return FetchIndex(f, x, i.Name)[0], true })}
		},
		"Map that fetches by filter": func() rig {
			g, s := source()
			return rig{g, s, Map("fetch", s, itemKey, func(f Fetch, i item) (item, bool) {
				return FetchAll(f, s, func(o item) bool { return o.Name == i.Name })[0], true
			})}
		},
		"Join": func() rig {
			g, s := source()
			return rig{g, s, Join("join", syncedStatic(g), Collection[item](s))}
		},
		"Map of Join of FlatMaps": func() rig {
			g, s := source()
			half := func(name string, which bool) Collection[item] {
				return FlatMap(name, s, itemKey, func(_ Fetch, i item) []item {
					if strings.HasSuffix(i.Name, "x") == which {
						return []item{i}
					}
					return nil
				})
			}
			j := Join("join", half("x", true), half("rest", false))
			return rig{g, s, Map("map", j, itemKey, func(_ Fetch, i item) (item, bool) { return i, true })}
		},
	}
}

// syncedStatic returns an empty collection that is synced.
func syncedStatic(g *Graph) Collection[item] {
	s := NewStatic(g, "empty", itemKey)
	s.MarkSynced()
	return s
}

// log records batches of events as text, and keeps what they add up to.
type log struct {
	t       *testing.T
	batches []string
	state   map[string]item
}

func record(t *testing.T, c Collection[item]) (*log, func()) {
	l := &log{t: t, state: map[string]item{}}
	return l, c.Register(l.take)
}

func (l *log) take(events []Event[item]) {
	var parts []string
	for _, e := range events {
		had, known := l.state[e.Key]
		if (e.Old != nil) != known || (known && *e.Old != had) {
			l.t.Errorf("event %s %s: old is %v, had %v", e.Kind, e.Key, e.Old, had)
		}
		switch e.Kind {
		case Added, Updated:
			if e.New == nil || e.New.Name != e.Key || known != (e.Kind == Updated) {
				l.t.Errorf("malformed event %+v", e)
			}
			l.state[e.Key] = *e.New
			parts = append(parts, fmt.Sprintf("%s %s=%s", e.Kind, e.Key, e.New.Value))
		case Deleted:
			if e.New != nil || !known {
				l.t.Errorf("malformed event %+v", e)
			}
			delete(l.state, e.Key)
			parts = append(parts, fmt.Sprintf("%s %s", e.Kind, e.Key))
		}
	}
	l.batches = append(l.batches, strings.Join(parts, ", "))
}

func (l *log) expect(batches ...string) {
	l.t.Helper()
	if !slices.Equal(l.batches, batches) {
		l.t.Errorf("got  %q\nwant %q", l.batches, batches)
	}
	l.batches = nil
}

func TestConformance(t *testing.T) {
	tests := map[string]func(*testing.T, rig){
		"events": func(t *testing.T, r rig) {
			l, unregister := record(t, r.out)
			l.expect() // nothing there: no call
			r.source.Set(item{"a", "1"})
			r.source.Set(item{"a", "2"})
			r.source.Set(item{"a", "2"}) // equal
			r.source.Delete("a", "unknown")
			l.expect("added a=1", "updated a=2", "deleted a")
			unregister()
			r.source.Set(item{"b", "1"})
			l.expect()
		},
		"late registration": func(t *testing.T, r rig) {
			r.source.Set(item{"b", "1"}, item{"a", "1"})
			l, _ := record(t, r.out)
			l.expect("added a=1, added b=1")
			r.source.Set(item{"c", "1"})
			l.expect("added c=1")
		},
		"batch": func(t *testing.T, r rig) {
			r.source.Set(item{"a", "1"}, item{"b", "1"})
			l, _ := record(t, r.out)
			l.expect("added a=1, added b=1")
			r.source.Stage([]item{{"a", "2"}, {"c", "1"}}, []string{"b"})
			r.source.Stage([]item{{"a", "3"}, {"d", "1"}}, []string{"c"})
			r.graph.Flush()
			l.expect("updated a=3, deleted b, added d=1")
		},
		"reset": func(t *testing.T, r rig) {
			r.source.Set(item{"a", "1"}, item{"b", "1"})
			l, _ := record(t, r.out)
			r.source.Reset([]item{{"b", "1"}, {"c", "1"}})
			l.expect("added a=1, added b=1", "deleted a, added c=1")
		},
		"reads": func(t *testing.T, r rig) {
			r.source.Set(item{"b", "2"}, item{"a", "1"})
			if v, ok := r.out.Get("b"); !ok || v.Value != "2" {
				t.Errorf("Get: %v %v", v, ok)
			}
			if _, ok := r.out.Get("c"); ok {
				t.Error("Get of what is not there")
			}
			if got := r.out.List(); !slices.Equal(got, []item{{"a", "1"}, {"b", "2"}}) || r.out.Len() != 2 {
				t.Errorf("List: %v", got)
			}
		},
		"up to date when told": func(t *testing.T, r rig) {
			calls := 0
			r.out.Register(func(events []Event[item]) {
				calls++
				for _, e := range events {
					if got, ok := r.out.Get(e.Key); !ok || got != *e.New {
						t.Errorf("told of %v, read %v", *e.New, got)
					}
				}
			})
			r.source.Set(item{"a", "1"})
			if calls != 1 {
				t.Errorf("%d calls", calls)
			}
		},
		"a subscriber may stage": func(t *testing.T, r rig) {
			r.out.Register(func(events []Event[item]) {
				if events[0].Key == "a" {
					r.source.Stage([]item{{"b", "echo"}}, nil)
				}
			})
			r.source.Set(item{"a", "1"})
			if v, _ := r.out.Get("b"); v.Value != "echo" {
				t.Error("the staged write is not part of the flush")
			}
		},
		"sync": func(t *testing.T, r rig) {
			r.source.Set(item{"a", "1"})
			if r.out.HasSynced() {
				t.Error("synced before its source")
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := r.out.WaitSynced(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			done := make(chan error)
			go func() { done <- r.out.WaitSynced(t.Context()) }()
			r.source.MarkSynced()
			if err := <-done; err != nil {
				t.Error(err)
			}
		},
		"concurrent writers lose nothing": func(t *testing.T, r rig) {
			var mu sync.Mutex
			total := map[string]string{}
			r.out.Register(func(events []Event[item]) {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range events {
					if delete(total, e.Key); e.New != nil {
						total[e.Key] = e.New.Value
					}
				}
			})
			var writers sync.WaitGroup
			for w := range 4 {
				writers.Go(func() {
					for i := range 50 {
						name := fmt.Sprintf("%d-%d", w, i%10)
						r.source.Set(item{name, fmt.Sprint(i)})
						if v, ok := r.out.Get(name); !ok || v.Value != fmt.Sprint(i) {
							t.Errorf("%s: wrote %d, read %v", name, i, v)
						}
						r.out.List()
						if i%10 == 9 && i < 40 {
							r.source.Delete(name)
						}
					}
				})
			}
			writers.Wait()
			want := map[string]string{}
			for _, i := range r.out.List() {
				want[i.Name] = i.Value
			}
			if len(want) != 40 || !maps.Equal(total, want) {
				t.Errorf("events add up to %v, state is %v", total, want)
			}
		},
	}
	for kind, make := range kinds() {
		for name, test := range tests {
			t.Run(kind+"/"+name, func(t *testing.T) { test(t, make()) })
		}
	}
}

func TestWaitSyncedDeadline(t *testing.T) {
	s := NewStatic(NewGraph(), "never", itemKey)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.WaitSynced(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
