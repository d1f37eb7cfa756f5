package lb

import (
	"container/heap"
	"sync"
	"sync/atomic"
)

func newRoundRobin(members []int, weights []uint64, equal bool) picker {
	if equal {
		return &rotation{members: members}
	}
	w := &weighted{members: members, weights: weights}
	for i, weight := range weights {
		if weight > 0 {
			w.queue = append(w.queue, turn{position: i, at: 1 / float64(weight)})
		}
	}
	heap.Init(&w.queue)
	return w
}

// rotation takes one after the other.
type rotation struct {
	members []int
	next    atomic.Uint64
}

// pick starts at a random host, so that many proxies that got the same hosts don't all start at the same.
func (r *rotation) pick(req *Request) int {
	n := r.next.Load()
	if n == 0 {
		r.next.CompareAndSwap(0, 1+req.Rand.Uint64()%uint64(len(r.members)))
	}
	return r.members[r.next.Add(1)%uint64(len(r.members))]
}

// weighted takes the host whose next turn is due first: each has a turn every 1/weight.
type weighted struct {
	members []int
	weights []uint64

	mu    sync.Mutex // guards the rest
	queue turns
	now   uint64 // orders equal turns: first come, first served
}

type turn struct {
	position int
	at       float64
	order    uint64
}

func (w *weighted) pick(*Request) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &w.queue[0]
	position := t.position
	w.now++
	t.order = w.now
	t.at += 1 / float64(w.weights[position])
	heap.Fix(&w.queue, 0)
	return w.members[position]
}

type turns []turn

func (t turns) Len() int { return len(t) }
func (t turns) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].order < t[j].order
}
func (t turns) Swap(i, j int) { t[i], t[j] = t[j], t[i] }

// Push implements heap.Interface; turns are never added later.
func (t *turns) Push(x any) { *t = append(*t, x.(turn)) }

// Pop implements heap.Interface.
func (t *turns) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}
