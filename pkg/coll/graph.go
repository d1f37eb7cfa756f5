package coll

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
)

// Graph is the scheduler of a set of collections. It runs on the goroutine of whoever flushes: there is none of its own,
// so there is nothing to start, stop or leak, and a test sees the effect of a write when the write returns.
type Graph struct {
	// guarded by stageMu: what writers have queued. Never held while mu is being taken.
	stageMu sync.Mutex
	staged  []node

	// mu is held by the flush that is running. It guards the structure of the graph, and every dependency.
	mu    sync.Mutex
	next  int      // guarded by mu: id of the next collection
	dirty nodeHeap // guarded by mu: to be processed, smallest id first
	done  []node   // guarded by mu: processed in this flush, to be delivered

	// guarded by waitMu: closed and replaced after each flush somebody waits for
	waitMu sync.Mutex
	wait   chan struct{}
}

// node is a collection seen by the scheduler.
type node interface {
	order() int
	queued() *bool // whether it is in Graph.dirty; guarded by Graph.mu
	process()      // compute and commit the net changes of this flush
	deliver()      // hand them to subscribers
}

// NewGraph returns an empty graph.
func NewGraph() *Graph { return &Graph{} }

// Flush applies what has been staged and returns when everything derived from it is up to date and delivered.
// Writes staged by subscribers meanwhile are part of it.
func (g *Graph) Flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.takeStaged() {
		g.run()
	}
	g.wake()
}

func (g *Graph) stage(n node) {
	g.stageMu.Lock()
	defer g.stageMu.Unlock()
	g.staged = append(g.staged, n)
}

func (g *Graph) takeStaged() bool {
	g.stageMu.Lock()
	staged := g.staged
	g.staged = nil
	g.stageMu.Unlock()
	for _, n := range staged {
		g.mark(n)
	}
	return len(staged) > 0
}

// run processes to quiescence, then delivers. Ids grow from sources to what is derived from them, hence a collection is
// processed once per flush, after everything it depends on.
func (g *Graph) run() {
	for g.dirty.Len() > 0 {
		n := heap.Pop(&g.dirty).(node)
		*n.queued() = false
		n.process()
		g.done = append(g.done, n)
	}
	done := g.done
	g.done = nil
	for _, n := range done {
		n.deliver()
	}
}

// mark queues a node for processing. Callers hold mu.
func (g *Graph) mark(n node) {
	if q := n.queued(); !*q {
		*q = true
		heap.Push(&g.dirty, n)
	}
}

// adopt gives a new collection its place in the order. Callers hold mu.
func (g *Graph) adopt() int {
	g.next++
	return g.next
}

// waitFor blocks until ok, which is asked again after each flush.
func (g *Graph) waitFor(ctx context.Context, name string, ok func() bool) error {
	for {
		g.waitMu.Lock()
		if g.wait == nil {
			g.wait = make(chan struct{})
		}
		wait := g.wait
		g.waitMu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("wait for collection %s to sync: %w", name, ctx.Err())
		}
	}
}

func (g *Graph) wake() {
	g.waitMu.Lock()
	defer g.waitMu.Unlock()
	if g.wait != nil {
		close(g.wait)
		g.wait = nil
	}
}

// nodeHeap orders nodes by id.
type nodeHeap []node

func (h nodeHeap) Len() int           { return len(h) }
func (h nodeHeap) Less(i, j int) bool { return h[i].order() < h[j].order() }
func (h nodeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *nodeHeap) Push(x any)        { *h = append(*h, x.(node)) }
func (h *nodeHeap) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return n
}
