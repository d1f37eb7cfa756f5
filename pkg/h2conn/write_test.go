package h2conn

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// The end of a message waits for others that are about to write, where it did so before to good effect, though its stream is the only
// one; when nobody came, the next one does not wait.
func TestOnlyStreamWritesWithThoseThatFollow(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	opt := Options{}
	opt.defaults()
	c := newConn(ours, true, 1, opt)
	t.Cleanup(func() { c.fail(net.ErrClosed) })

	// flush has one message end, and says whether another that began to be written meanwhile went with it.
	flush := func(other bool) (together bool) {
		flushed, done := false, make(chan struct{})
		go func() {
			defer close(done)
			for again := other; again; runtime.Gosched() {
				c.mu.Lock()
				if again = !flushed; again && c.writing { // the first one lets us run, or is in its system call
					together = len(c.out) > 0
					c.reserve(64)
					c.out = append(c.out, "second"...)
					again = false
				}
				c.mu.Unlock()
			}
		}()
		c.mu.Lock()
		c.reserve(64)
		c.out = append(c.out, "first"...)
		c.flushSoon()
		flushed = true
		c.mu.Unlock()
		<-done
		return together
	}
	flush(false)
	if c.crowded {
		t.Error("a connection on which nobody else writes is taken for crowded")
	}
	wait.Until(t, 10*time.Second, "two messages in one write", func() bool {
		c.mu.Lock()
		c.crowded = true
		c.mu.Unlock()
		return flush(true) && c.crowded
	}, nil)
	flush(false)
	if c.crowded {
		t.Error("the connection is still taken for crowded when nobody came")
	}
}
