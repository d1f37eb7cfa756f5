package netx

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Life is the context of a connection. It is what [context.WithCancelCause] returns, but for connections that are many and mostly idle:
// who waits for its end by AfterFunc costs a list element, and there is a channel only if somebody asks for it. Make it with [NewLife];
// safe for concurrent use.
type Life struct {
	parent context.Context // immutable
	unhook func() bool     // from a parent of another type; immutable

	mu       sync.Mutex    // guards the rest, of which prev and next by the mu of the Life above; held one at a time
	done     chan struct{} // nil until somebody asks for it
	end      error         // why it ended; nil while it lasts
	watches  *watch
	children *Life // the first of them

	prev, next *Life
}

// watch is a function that is called at the end of a Life, whose mu guards it.
type watch struct {
	life *Life
	call func()
	next *watch
}

// ended is the error of a Life that ended for a reason of its own. It is a [context.Canceled] that says why.
type ended struct{ cause error }

// Error implements error.
func (e ended) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e ended) Unwrap() error { return e.cause }

// Is implements errors.Is: whoever looks for a cancelled context finds one.
func (ended) Is(target error) bool { return target == context.Canceled }

// NewLife returns a Life that ends with parent, at the latest. Whoever makes it must end it.
func NewLife(parent context.Context) *Life {
	l := &Life{parent: parent}
	if above, ok := parent.(*Life); ok {
		above.adopt(l)
		return l
	}
	if parent.Done() != nil {
		l.unhook = context.AfterFunc(parent, l.inherit)
	}
	return l
}

// inherit ends it with its parent.
func (l *Life) inherit() { l.finish(endOf(l.parent)) }

// End ends it for a reason, which [Cause] returns; nil is none. Only the first call has an effect. It never blocks. For contexts of package
// context that are made from this one, [context.Cause] may be that of the parent, if it ends, too.
func (l *Life) End(cause error) {
	if cause == nil || cause == context.Canceled { //nolint:errorlint // one that wraps it says more
		l.finish(context.Canceled)
	} else {
		l.finish(ended{cause})
	}
	if l.unhook != nil {
		l.unhook()
	}
	if above, ok := l.parent.(*Life); ok {
		above.disown(l)
	}
}

// finish ends it and those below.
func (l *Life) finish(end error) {
	l.mu.Lock()
	if l.end != nil {
		l.mu.Unlock()
		return
	}
	l.end = end
	if l.done != nil {
		close(l.done)
	}
	watches := l.watches
	l.watches = nil
	var below []*Life
	for c := l.children; c != nil; {
		next := c.next
		c.prev, c.next = nil, nil
		below = append(below, c)
		c = next
	}
	l.children = nil
	l.mu.Unlock()
	for _, c := range below {
		c.finish(end)
	}
	for w := watches; w != nil; w = w.next {
		go w.call() // not here: the caller may hold locks
	}
}

// adopt makes c end with l.
func (l *Life) adopt(c *Life) {
	l.mu.Lock()
	end := l.end
	if end == nil {
		if c.next = l.children; c.next != nil {
			c.next.prev = c
		}
		l.children = c
	}
	l.mu.Unlock()
	if end != nil {
		c.finish(end)
	}
}

// disown forgets c, which has ended.
func (l *Life) disown(c *Life) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.prev != nil:
		c.prev.next = c.next
	case l.children == c:
		l.children = c.next
	default:
		return // l has ended, or it was called before
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
}

// AfterFunc is [context.AfterFunc]; package context uses it for the contexts that are made from this one.
func (l *Life) AfterFunc(f func()) (stop func() bool) {
	l.mu.Lock()
	if l.end != nil {
		l.mu.Unlock()
		go f()
		return func() bool { return false }
	}
	w := &watch{life: l, call: f, next: l.watches}
	l.watches = w
	l.mu.Unlock()
	return w.stop
}

// stop reports whether the function is not called.
func (w *watch) stop() bool {
	w.life.mu.Lock()
	defer w.life.mu.Unlock()
	for at := &w.life.watches; *at != nil; at = &(*at).next {
		if *at == w {
			*at = w.next
			return true
		}
	}
	return false
}

// Deadline implements [context.Context].
func (l *Life) Deadline() (time.Time, bool) { return l.parent.Deadline() }

// Value implements [context.Context].
func (l *Life) Value(key any) any { return l.parent.Value(key) }

// Done implements [context.Context].
func (l *Life) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.end != nil {
			close(l.done)
		}
	}
	return l.done
}

// Err implements [context.Context]: errors.Is finds context.Canceled in it, or what the parent's is.
func (l *Life) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// Cause is [context.Cause], which also knows why a Life ended.
func Cause(ctx context.Context) error {
	l, ok := ctx.(*Life)
	if !ok {
		return context.Cause(ctx)
	}
	end := l.Err()
	var own ended
	if errors.As(end, &own) {
		return own.cause
	}
	return end
}

// endOf is what a Life below a context ends with.
func endOf(ctx context.Context) error {
	err := ctx.Err()
	if cause := Cause(ctx); errors.Is(err, context.Canceled) && !errors.Is(cause, context.Canceled) {
		return ended{cause}
	}
	return err
}

// afterFunc is [context.AfterFunc] without what a Life does not need.
func afterFunc(ctx context.Context, f func()) (stop func() bool) {
	if l, ok := ctx.(*Life); ok {
		return l.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}
