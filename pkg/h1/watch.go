package h1

import (
	"errors"
	"os"
	"sync"
	"time"
)

// watch notices that the peer went away while nobody reads: while a request is being answered, while a connection is idle. It reads
// ahead on a goroutine of its own, but only after a while: most exchanges are over before and cost nothing.
type watch struct {
	in    *input
	delay time.Duration
	lost  func(n int, err error) // on the watch's goroutine: what reading ahead brought

	mu      sync.Mutex // guards the rest; in belongs to the watch while reading is set
	idle    sync.Cond
	timer   *time.Timer
	armed   bool
	reading bool
	over    bool // the input is another's for good
}

// past is a read deadline that interrupts a read at once.
func past() time.Time { return time.Unix(1, 0) }

// arm lets the watch read ahead after the delay, until stop.
func (w *watch) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed || w.reading || w.over {
		return
	}
	w.armed = true
	if w.timer == nil {
		w.idle.L = &w.mu
		w.timer = time.AfterFunc(w.delay, w.run)
	} else {
		w.timer.Reset(w.delay)
	}
}

func (w *watch) run() {
	w.mu.Lock()
	if !w.armed || w.reading || w.in.w > w.in.r {
		w.mu.Unlock() // stopped; or the peer is well: it already sent the next request
		return
	}
	w.armed, w.reading = false, true
	w.in.arm(0, true)
	w.mu.Unlock()
	w.in.makeRoom()
	n, err := w.in.nc.Read(w.in.buf[w.in.w:])
	w.in.w += n
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		w.lost(n, err)
	}
	w.mu.Lock()
	w.reading = false
	w.idle.Broadcast()
	w.mu.Unlock()
}

// end takes the input back for good: who is about to arm the watch comes too late.
func (w *watch) end() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.stop()
}

// stop takes the input back.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		w.armed = false
		w.timer.Stop()
	}
	if !w.reading {
		return
	}
	w.in.nc.SetReadDeadline(past())
	for w.reading {
		w.idle.Wait()
	}
	w.in.nc.SetReadDeadline(time.Time{})
}
