package hbone

import "sync"

// cond is a [sync.Cond] that takes no memory until somebody waits, which most streams never do. All of its methods are called with the
// lock held that Wait is told.
type cond struct{ c *sync.Cond }

// Wait waits for the others. The lock is the same each time.
func (c *cond) Wait(lock sync.Locker) {
	if c.c == nil {
		c.c = sync.NewCond(lock)
	}
	c.c.Wait()
}

// Broadcast wakes all who wait.
func (c *cond) Broadcast() {
	if c.c != nil {
		c.c.Broadcast()
	}
}

// Signal wakes one.
func (c *cond) Signal() {
	if c.c != nil {
		c.c.Signal()
	}
}
