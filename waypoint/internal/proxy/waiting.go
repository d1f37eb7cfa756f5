package proxy

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errGivenUp is the error of an attempt's context.
var errGivenUp = errors.New("the request was given up")

// attemptContext is a context that costs nothing until somebody waits for its end.
type attemptContext struct {
	base context.Context // of the values; nil is none

	mu    sync.Mutex // guards the rest
	done  chan struct{}
	ended bool
}

// end cancels the context.
func (c *attemptContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	if c.done != nil {
		close(c.done)
	}
}

// fresh returns a context that has not ended: c itself, if nobody can have kept it.
func (c *attemptContext) fresh() *attemptContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return &attemptContext{base: c.base}
	}
	c.ended = false
	return c
}

// Deadline implements context.Context: deadlines come as cancellations.
func (*attemptContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (c *attemptContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.ended {
			close(c.done)
		}
	}
	return c.done
}

// Err implements context.Context.
func (c *attemptContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return errGivenUp
	}
	return nil
}

// Value implements context.Context.
func (c *attemptContext) Value(key any) any {
	if c.base == nil {
		return nil
	}
	return c.base.Value(key)
}
