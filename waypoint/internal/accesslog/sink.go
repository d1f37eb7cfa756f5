package accesslog

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sinkLimit is how many bytes may wait for a file; a line beyond is dropped.
	sinkLimit = 4 << 20
	// eager is how many bytes are written without waiting for more.
	eager = 64 << 10
	// linger is how long lines are gathered.
	linger = 20 * time.Millisecond
)

// sink is a file and the goroutine that writes it.
type sink struct {
	out     io.WriteCloser
	dropped *atomic.Uint64
	failed  func(error)

	wake chan struct{} // holds one token: lines wait
	full chan struct{} // holds one token: enough of them to be written at once
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex // guards the rest
	waiting []byte
	closed  bool
}

func newSink(out io.WriteCloser, dropped *atomic.Uint64, failed func(error)) *sink {
	s := &sink{
		out: out, dropped: dropped, failed: failed,
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go s.run()
	return s
}

// write takes a copy of the line, and never waits for the file.
func (s *sink) write(line []byte) {
	s.mu.Lock()
	if s.closed || len(s.waiting)+len(line) > sinkLimit {
		s.mu.Unlock()
		s.dropped.Add(1)
		return
	}
	first := len(s.waiting) == 0
	s.waiting = append(s.waiting, line...)
	enough := len(s.waiting) >= eager
	s.mu.Unlock()
	if first {
		signal(s.wake)
	}
	if enough {
		signal(s.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes until the sink is closed and empty.
func (s *sink) run() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var writing []byte
	for range s.wake {
		timer.Reset(linger)
		select {
		case <-s.full:
		case <-timer.C:
		}
		s.mu.Lock()
		s.waiting, writing = writing[:0], s.waiting
		closed := s.closed
		s.mu.Unlock()
		if _, err := s.out.Write(writing); err != nil {
			s.failed(err)
		}
		if closed {
			return
		}
	}
}

// close writes what waits and closes the file.
func (s *sink) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	signal(s.wake)
	signal(s.full)
	<-s.done
	return s.out.Close()
}
