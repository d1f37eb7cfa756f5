package netx

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Everything runs, at the same time if it has to. That nothing stays behind is looked at when all tests have run.
func TestWorkers(t *testing.T) {
	var w Workers
	var done atomic.Int32
	for range 50 {
		var together sync.WaitGroup // each waits for all others
		together.Add(10)
		for range 10 {
			w.Go(func() {
				together.Done()
				together.Wait()
				done.Add(1)
			})
		}
		together.Wait()
	}
	w.Wait()
	if got := done.Load(); got != 500 {
		t.Errorf("%d of 500 ran", got)
	}
}

// Wait must not return before what was started last.
func TestWorkersWaitForTheLast(t *testing.T) {
	for range 1000 {
		var w Workers
		finished := false
		w.Go(func() {})
		w.Go(func() { finished = true })
		w.Wait()
		if !finished {
			t.Fatal("one was still running")
		}
	}
}

// As many goroutines as were asked for wait for more work, and no more.
func TestWorkersIdle(t *testing.T) {
	w := Workers{Idle: 8}
	for range 3 {
		var together sync.WaitGroup
		together.Add(20)
		for range 20 {
			w.Go(func() { together.Done(); together.Wait() })
		}
		w.wg.Wait()
		w.mu.Lock()
		if n := len(w.idle); n != 8 {
			t.Errorf("%d wait, want 8", n)
		}
		w.mu.Unlock()
	}
	w.Wait()
}

// What is held is waited for, though no function runs.
func TestWorkersWaitForWhatIsHeld(t *testing.T) {
	var w Workers
	w.Hold()
	released := false
	go func() {
		released = true
		w.Release()
	}()
	w.Wait()
	if !released {
		t.Error("it did not wait")
	}
}
