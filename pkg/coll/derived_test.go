package coll

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// service selects the pods whose Value is its own.
func podsOf(x Index[item, string], ran *[]string) func(Fetch, item) (item, bool) {
	return func(f Fetch, svc item) (item, bool) {
		*ran = append(*ran, svc.Name)
		var names []string
		for _, p := range FetchIndex(f, x, svc.Value) {
			names = append(names, p.Name)
		}
		return item{svc.Name, strings.Join(names, "+")}, true
	}
}

func byValue(i item) []string { return []string{i.Value} }

func took(t *testing.T, ran *[]string, want ...string) {
	t.Helper()
	slices.Sort(*ran)
	if !slices.Equal(*ran, want) {
		t.Errorf("ran for %v, want %v", *ran, want)
	}
	*ran = nil
}

// A change runs the function only for the inputs that read what changed, and again only while they read it.
func TestOnlyDependentsRun(t *testing.T) {
	g := NewGraph()
	pods, services := NewStatic(g, "pods", itemKey), NewStatic(g, "services", itemKey)
	var ran []string
	c := Map("endpoints", services, itemKey, podsOf(NewIndex(pods, byValue), &ran))
	services.Set(item{"web", "app=web"}, item{"db", "app=db"})
	took(t, &ran, "db", "web")
	l, _ := record(t, c)
	l.expect("added db=, added web=")

	pods.Set(item{"p1", "app=web"})
	took(t, &ran, "web")
	pods.Set(item{"p2", "app=web"}, item{"p3", "app=none"})
	took(t, &ran, "web")
	pods.Set(item{"p1", "app=db"}) // moves: both are concerned, once each
	took(t, &ran, "db", "web")
	services.Set(item{"db", "app=none"}) // no longer reads app=db
	took(t, &ran, "db")
	pods.Delete("p1")
	took(t, &ran)
	services.Delete("web")
	took(t, &ran)
	pods.Delete("p2")
	took(t, &ran)
	l.expect("updated web=p1", "updated web=p1+p2", "updated db=p1, updated web=p2", "updated db=p3", "deleted web")
}

func TestFetchOneAndAll(t *testing.T) {
	g := NewGraph()
	config, in := NewStatic(g, "config", itemKey), NewStatic(g, "in", itemKey)
	var ran []string
	Map("one", in, itemKey, func(f Fetch, i item) (item, bool) {
		ran = append(ran, "one:"+i.Name)
		c, ok := FetchOne(f, config, i.Value)
		return item{i.Name, c.Value}, ok
	})
	Map("all", in, itemKey, func(f Fetch, i item) (item, bool) {
		ran = append(ran, "all:"+i.Name)
		n := len(FetchAll(f, config, func(c item) bool { return strings.HasPrefix(c.Name, i.Value) }))
		return item{i.Name, fmt.Sprint(n)}, true
	})
	in.Set(item{"i", "x"}, item{"j", "y"})
	took(t, &ran, "all:i", "all:j", "one:i", "one:j")
	config.Set(item{"x", "1"}) // awaited though it was not there
	took(t, &ran, "all:i", "one:i")
	config.Set(item{"yy", "1"})
	took(t, &ran, "all:j")
	config.Set(item{"z", "1"})
	took(t, &ran)
	config.Delete("x")
	took(t, &ran, "all:i", "one:i")
}

func TestEqualOutputsAreNoEvent(t *testing.T) {
	g := NewGraph()
	in := NewStatic(g, "in", itemKey)
	var ran []string
	upper := Map("first letter", in, itemKey, func(_ Fetch, i item) (item, bool) { return item{i.Name, i.Value[:1]}, true })
	Map("after", upper, itemKey, func(_ Fetch, i item) (item, bool) { ran = append(ran, i.Name); return i, true })
	protos := Map("protos", in, (*wrapperspb.StringValue).GetValue, func(_ Fetch, i item) (*wrapperspb.StringValue, bool) {
		return wrapperspb.String(i.Value[:1]), true
	})
	events := 0
	protos.Register(func([]Event[*wrapperspb.StringValue]) { events++ })
	in.Set(item{"a", "xy"})
	took(t, &ran, "a")
	in.Set(item{"a", "xz"})
	took(t, &ran)
	if events != 1 {
		t.Errorf("%d batches for equal messages", events)
	}
}

// However a collision comes about, the value of the smallest input key counts.
func TestKeyCollision(t *testing.T) {
	g := NewGraph()
	in := NewStatic(g, "in", itemKey)
	out := Map("out", in, itemKey, func(_ Fetch, i item) (item, bool) { return item{"k", i.Name + i.Value}, i.Value != "none" })
	l, _ := record(t, out)
	in.Set(item{"b", "1"})
	in.Set(item{"c", "1"})
	in.Set(item{"a", "1"})
	in.Set(item{"b", "2"})
	in.Delete("a")
	in.Set(item{"b", "none"})
	in.Delete("c")
	in.Delete("b")
	l.expect("added k=b1", "updated k=a1", "updated k=b2", "updated k=c1", "deleted k")
}

// Deriving any number of steps from any sequence of changes gives what deriving from the final state gives.
func TestRandomChangesConverge(t *testing.T) {
	build := func() (g *Graph, pods, services *Static[item], out Collection[item]) {
		g = NewGraph()
		pods, services = NewStatic(g, "pods", itemKey), NewStatic(g, "services", itemKey)
		var ran []string
		endpoints := podsOf(NewIndex(pods, byValue), &ran)
		eps := Map("endpoints", services, itemKey, func(f Fetch, i item) (item, bool) {
			o, ok := endpoints(f, i)
			return item{o.Name[:1], o.Value + i.Name}, ok // inputs collide on purpose
		})
		each := FlatMap("each", eps, itemKey, func(f Fetch, i item) (out []item) {
			for _, p := range strings.Split(i.Value, "+") {
				v, _ := FetchOne(f, Collection[item](pods), p)
				out = append(out, item{p, i.Name + v.Value})
			}
			return out
		})
		return g, pods, services, Join("join", each, eps)
	}
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		g, pods, services, out := build()
		l, _ := record(t, out)
		for range 200 {
			s := pods
			if rnd.IntN(2) == 0 {
				s = services
			}
			key := fmt.Sprintf("%c%d", 'a'+rnd.IntN(4), rnd.IntN(3))
			if rnd.IntN(3) == 0 {
				s.Stage(nil, []string{key})
			} else {
				s.Stage([]item{{key, fmt.Sprint(rnd.IntN(4))}}, nil)
			}
			if rnd.IntN(3) > 0 {
				g.Flush()
			}
		}
		g.Flush()
		g2, pods2, services2, want := build()
		pods2.Stage(pods.List(), nil)
		services2.Stage(services.List(), nil)
		g2.Flush()
		if !slices.Equal(out.List(), want.List()) || len(l.state) != want.Len() {
			t.Fatalf("seed %d:\ngot  %v\nwant %v", seed, out.List(), want.List())
		}
	}
}

func TestSingleton(t *testing.T) {
	g := NewGraph()
	in := NewStatic(g, "in", itemKey)
	mesh := Singleton(g, "mesh", func(f Fetch) (string, bool) {
		i, ok := FetchOne(f, in, "mesh")
		return i.Value, ok
	})
	use := Map("use", in, itemKey, func(f Fetch, i item) (item, bool) {
		v, ok := FetchSingleton(f, mesh)
		return item{i.Name, v}, ok
	})
	in.Set(item{"a", "1"})
	if use.Len() != 0 {
		t.Error("made without the singleton")
	}
	in.Set(item{"mesh", "v"})
	if v, ok := use.Get("a"); !ok || v.Value != "v" {
		t.Errorf("got %v", v)
	}
}

func TestJoinPrecedence(t *testing.T) {
	g := NewGraph()
	first, second := NewStatic(g, "first", itemKey), NewStatic(g, "second", itemKey)
	l, _ := record(t, Join("join", first, second))
	second.Set(item{"k", "2"})
	first.Set(item{"k", "1"})
	second.Delete("k")
	first.Delete("k")
	l.expect("added k=2", "updated k=1", "deleted k")
}

func TestJoinOfPartsThatChangeTogether(t *testing.T) {
	g := NewGraph()
	first, second := NewStatic(g, "first", itemKey), NewStatic(g, "second", itemKey)
	l, _ := record(t, Join("join", first, second))
	stage := func(one, two []item, gone ...string) {
		first.Stage(one, nil)
		second.Stage(two, gone)
		g.Flush()
	}
	stage([]item{{"b", "1"}, {"d", "1"}}, []item{{"a", "2"}, {"b", "2"}, {"c", "2"}, {"e", "2"}})
	l.expect("added a=2, added b=1, added c=2, added d=1, added e=2")
	stage(nil, []item{{"b", "3"}})
	l.expect() // what the first part has counts
	stage([]item{{"c", "1"}, {"e", "2"}}, nil, "b", "c", "e")
	l.expect("updated c=1")
}

func TestAReaderRunsOnceForEachFlush(t *testing.T) {
	g := NewGraph()
	in, read := NewStatic(g, "in", itemKey), NewStatic(g, "read", itemKey)
	in.Set(item{"a", "1"})
	runs := 0
	Map("out", in, itemKey, func(f Fetch, i item) (item, bool) {
		runs++
		FetchOne(f, read, "x")
		FetchOne(f, read, "y")
		return i, true
	})
	for round := range 3 {
		in.Stage([]item{{"a", fmt.Sprint(round)}}, nil)
		read.Set(item{"x", fmt.Sprint(round)}, item{"y", fmt.Sprint(round)})
		if runs != round+2 {
			t.Fatalf("%d runs after %d flushes and the first", runs, round+1)
		}
	}
}

func TestMisuse(t *testing.T) {
	g := NewGraph()
	in := NewStatic(g, "in", itemKey)
	var later Collection[item]
	Map("early", in, itemKey, func(f Fetch, i item) (item, bool) { return FetchOne(f, later, i.Name) })
	later = NewStatic(g, "later", itemKey)
	foreign := NewStatic(NewGraph(), "foreign", itemKey)
	for name, fn := range map[string]func(){
		"fetch of a later collection": func() { in.Set(item{"a", "1"}) },
		"join across graphs":          func() { Join("join", Collection[item](in), foreign) },
		"join of nothing":             func() { Join[item]("join") },
		"equal of another type":       func() { NewStatic(NewGraph(), "x", itemKey, WithEqual(func(a, b int) bool { return a == b })) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			fn()
		})
	}
}

// The zero Fetch reads untracked, so that a function can be tested by itself.
func TestZeroFetch(t *testing.T) {
	g := NewGraph()
	in := NewStatic(g, "in", itemKey)
	in.Set(item{"a", "v"})
	if v, _ := FetchOne(Fetch{}, in, "a"); v.Value != "v" {
		t.Error(v)
	}
	if got := FetchAll(Fetch{}, in); len(got) != 1 {
		t.Error(got)
	}
	if got := FetchIndex(Fetch{}, NewIndex(in, byValue), "v"); len(got) != 1 {
		t.Error(got)
	}
}

func BenchmarkChange(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g := NewGraph()
			pods, services := NewStatic(g, "pods", itemKey), NewStatic(g, "services", itemKey)
			var ran []string
			Map("endpoints", services, itemKey, podsOf(NewIndex(pods, byValue), &ran))
			for i := range n {
				services.Stage([]item{{fmt.Sprint("s", i), fmt.Sprint(i)}}, nil)
				pods.Stage([]item{{fmt.Sprint("p", i), fmt.Sprint(i)}}, nil)
			}
			g.Flush()
			for i := 0; b.Loop(); i++ {
				pods.Set(item{"moving", fmt.Sprint(i % n)})
				ran = ran[:0]
			}
		})
	}
}
