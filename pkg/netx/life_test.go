package netx

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var errOfTest = errors.New("of this test")

// below are the kinds of contexts that may be made from one.
func below(t *testing.T, parent context.Context) map[string]context.Context {
	t.Helper()
	cancelled, cancel := context.WithCancel(parent)
	t.Cleanup(cancel)
	timed, cancel := context.WithTimeout(parent, time.Hour)
	t.Cleanup(cancel)
	life := NewLife(parent)
	t.Cleanup(func() { life.End(nil) })
	deeper := NewLife(context.WithValue(life, t, 1))
	t.Cleanup(func() { deeper.End(nil) })
	return map[string]context.Context{"cancel": cancelled, "timeout": timed, "life": life, "life of a value of a life": deeper}
}

func TestLifeEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		end         func(parent context.CancelCauseFunc, life *Life)
		err, cause  error
		parentStays bool
		late        bool // the parent ends, too
	}{
		"by its owner":              {end: func(_ context.CancelCauseFunc, l *Life) { l.End(nil) }, err: context.Canceled, cause: context.Canceled, parentStays: true},
		"for a reason":              {end: func(_ context.CancelCauseFunc, l *Life) { l.End(errOfTest) }, err: context.Canceled, cause: errOfTest, parentStays: true},
		"with its parent":           {end: func(p context.CancelCauseFunc, _ *Life) { p(nil) }, err: context.Canceled, cause: context.Canceled},
		"with its parent's reason":  {end: func(p context.CancelCauseFunc, _ *Life) { p(errOfTest) }, err: context.Canceled, cause: errOfTest},
		"for the first of reasons":  {end: func(p context.CancelCauseFunc, l *Life) { l.End(errOfTest); p(errors.New("later")) }, err: context.Canceled, cause: errOfTest, late: true},
		"for the first of its ends": {end: func(_ context.CancelCauseFunc, l *Life) { l.End(errOfTest); l.End(nil) }, err: context.Canceled, cause: errOfTest, parentStays: true},
	} {
		t.Run(name, func(t *testing.T) {
			parent, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			life := NewLife(parent)
			if life.Err() != nil || Cause(life) != nil {
				t.Fatalf("it begins with %v, %v", life.Err(), Cause(life))
			}
			contexts := below(t, life)
			called := make(chan struct{})
			life.AfterFunc(func() { close(called) })
			tt.end(cancel, life)
			<-called
			contexts["itself"] = life
			for kind, ctx := range contexts {
				<-ctx.Done()
				if _, ours := ctx.(*Life); tt.late && (!ours || kind != "life" && kind != "itself") {
					if !errors.Is(ctx.Err(), tt.err) {
						t.Errorf("%s: %v, want %v", kind, ctx.Err(), tt.err)
					}
					continue
				}
				if err, cause := ctx.Err(), Cause(ctx); !errors.Is(err, tt.err) || !errors.Is(cause, tt.cause) || cause.Error() != tt.cause.Error() {
					t.Errorf("%s: %v, %v; want %v, %v", kind, err, cause, tt.err, tt.cause)
				}
			}
			if stays := parent.Err() == nil; stays != tt.parentStays {
				t.Errorf("its parent: %v", parent.Err())
			}
			// Who comes late is told at once.
			late := make(chan struct{})
			if stop := life.AfterFunc(func() { close(late) }); stop() {
				t.Error("a function of an ended life was stopped")
			}
			<-late
			for kind, ctx := range below(t, life) {
				<-ctx.Done()
				if _, ours := ctx.(*Life); (!tt.late || ours && kind == "life") && !errors.Is(Cause(ctx), tt.cause) {
					t.Errorf("%s, made late: %v, want %v", kind, Cause(ctx), tt.cause)
				}
			}
		})
	}
}

func TestLifeTakesOverDeadlinesAndValues(t *testing.T) {
	type key struct{}
	at := time.Now().Add(time.Hour)
	parent, cancel := context.WithDeadline(context.WithValue(context.Background(), key{}, 7), at)
	defer cancel()
	life := NewLife(parent)
	defer life.End(nil)
	if got, ok := life.Deadline(); !ok || !got.Equal(at) || life.Value(key{}) != 7 {
		t.Errorf("%v, %v, %v", got, ok, life.Value(key{}))
	}
	past, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	late := NewLife(past)
	<-late.Done()
	if !errors.Is(late.Err(), context.DeadlineExceeded) || errors.Is(late.Err(), context.Canceled) {
		t.Errorf("after a deadline: %v", late.Err())
	}
}

func TestLifeStopsFunctions(t *testing.T) {
	life := NewLife(context.Background())
	var stops []func() bool
	var calls atomic.Int32
	for range 3 {
		stops = append(stops, life.AfterFunc(func() { calls.Add(1) }))
	}
	last := make(chan struct{})
	life.AfterFunc(func() { close(last) })
	if !stops[1]() || stops[1]() {
		t.Error("stopping one works once")
	}
	if !stops[2]() || !stops[0]() {
		t.Error("others could not be stopped")
	}
	life.End(nil)
	<-last
	if calls.Load() != 0 || stops[0]() {
		t.Errorf("%d that were stopped were called", calls.Load())
	}
}

// Lives come and go while the one above ends: each of them ends, once, and calls its function.
func TestLivesEndSideBySide(t *testing.T) {
	for range 50 {
		parent := NewLife(context.Background())
		var all sync.WaitGroup
		var calls atomic.Int32
		const lives = 40
		for n := range lives {
			all.Go(func() {
				life := NewLife(parent)
				ended := make(chan struct{})
				life.AfterFunc(func() { calls.Add(1); close(ended) })
				if n%2 == 0 {
					life.End(errOfTest)
				}
				<-ended
				life.End(nil)
			})
		}
		all.Go(func() { parent.End(nil) })
		all.Wait()
		if got := calls.Load(); got != lives {
			t.Fatalf("%d of %d were called", got, lives)
		}
	}
}

// Those that have ended are not kept by the one above.
func TestLivesAreForgotten(t *testing.T) {
	parent := NewLife(context.Background())
	defer parent.End(nil)
	lives := make([]*Life, 100)
	for n := range lives {
		lives[n] = NewLife(parent)
	}
	for n := range lives { // from the middle, and each twice
		l := lives[(n*37)%len(lives)]
		l.End(nil)
		l.End(errOfTest)
	}
	if parent.children != nil {
		t.Error("some are kept")
	}
	if parent.Err() != nil {
		t.Error("the one above has ended")
	}
}
