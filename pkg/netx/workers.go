package netx

import "sync"

// idleWorkers is how many goroutines wait for more work. Their stacks cost some KiB each.
const idleWorkers = 4

// Workers runs functions side by side, as sync.WaitGroup.Go does, and keeps a few goroutines for the next ones: where connections
// come and go, most of what a fresh goroutine costs is growing its stack again. The zero value is ready.
type Workers struct {
	// Idle is how many goroutines are kept; 0 is a few. It is set before the first use.
	Idle int

	wg sync.WaitGroup

	mu     sync.Mutex // guards the rest
	idle   []chan func()
	closed bool
}

// Go runs fn on a goroutine, at once. It must not be called after Wait.
func (w *Workers) Go(fn func()) {
	w.wg.Add(1)
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		next := w.idle[n-1] // whose stack is the warmest
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		next <- fn
		return
	}
	w.mu.Unlock()
	go w.work(fn)
}

// Hold makes Wait wait for one Release more: for what goes on after a function has returned. It is called before Wait, or by a function
// that runs.
func (w *Workers) Hold() { w.wg.Add(1) }

// Release is the end of what Hold began.
func (w *Workers) Release() { w.wg.Done() }

func (w *Workers) work(fn func()) {
	var next chan func()
	for ok := true; ok; fn, ok = <-next {
		fn()
		if next = w.done(next); next == nil {
			return
		}
	}
}

// done ends a function, and returns where its goroutine gets the next one, nil when it is to leave. It keeps what it needs off the stack
// of functions that run. The channel is made by the first one that is kept: most goroutines run one function, for long.
func (w *Workers) done(next chan func()) chan func() {
	limit := w.Idle
	if limit == 0 {
		limit = idleWorkers
	}
	w.mu.Lock()
	if w.closed || len(w.idle) >= limit {
		next = nil
	} else {
		if next == nil {
			next = make(chan func(), 1) // Go never waits
		}
		w.idle = append(w.idle, next)
	}
	w.mu.Unlock()
	w.wg.Done()
	return next
}

// Wait returns when all functions have, and lets the goroutines go.
func (w *Workers) Wait() {
	w.mu.Lock()
	w.closed = true
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
	w.mu.Unlock()
	w.wg.Wait()
}
