package netx

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// waiting is how many wait.
func (t *Turns) waiting() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := t.first; k != nil; k = k.next {
		for w := k.first; w != nil; w = w.next {
			n++
		}
	}
	return n
}

func TestTurnsGoRound(t *testing.T) {
	turns := NewTurns(1)
	holder := turns.Taker()
	holder.Take()
	var mu sync.Mutex
	var order []string
	var all sync.WaitGroup
	queue := func(name string, k *Taker) {
		before := turns.waiting()
		all.Go(func() {
			k.Take()
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			k.Give()
		})
		wait.Until(t, time.Minute, "it waits", func() bool { return turns.waiting() == before+1 }, nil)
	}
	many, one, another := turns.Taker(), turns.Taker(), turns.Taker()
	for range 3 {
		queue("many", many)
	}
	queue("one", one)
	queue("another", another)
	holder.Give()
	all.Wait()
	if want := []string{"many", "one", "another", "many", "many"}; !slices.Equal(order, want) {
		t.Errorf("served %v, want %v", order, want)
	}
}

func TestNoMoreThanThereAreTurns(t *testing.T) {
	const n = 3
	turns := NewTurns(n)
	var busy, most, done atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		k := turns.Taker()
		for range 4 {
			all.Go(func() {
				for range 2000 {
					k.Take()
					now := busy.Add(1)
					for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
					}
					busy.Add(-1)
					k.Give()
					done.Add(1)
				}
			})
		}
	}
	all.Wait()
	if most.Load() > n || done.Load() != 16*2000 {
		t.Errorf("%d at once, %d done", most.Load(), done.Load())
	}
	k := turns.Taker()
	for range n { // all of them are free again
		k.Take()
	}
}

func TestNobodyWaitsWithoutTurns(t *testing.T) {
	var k *Taker
	k.Take()
	k.Take()
	k.Give()
}
