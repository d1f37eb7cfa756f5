package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// markerPrefix starts the versions that changes make pods; a number of markerDigits follows.
const (
	markerPrefix = "mark-"
	markerDigits = 8
)

func marker(n int) string { return fmt.Sprintf("%s%0*d", markerPrefix, markerDigits, n) }

// fleet is all clients, and when each got each change.
type fleet struct {
	clients []*ztunnel
	wg      sync.WaitGroup
	failed  chan error
	closed  atomic.Bool
	began   time.Time

	responses atomic.Int64 // to all clients, but for their first ones
	syncBytes atomic.Int64
	synced    chan struct{} // one for each client that has its first state
	made      int
	arrived   []change // by number
	complete  chan int // numbers of changes that all clients have
}

// change is one, as clients saw it.
type change struct {
	missing atomic.Int64
	at      []atomic.Int64 // by client, since the fleet began; 0 is not yet
}

// newFleet is for as many clients and changes at most.
func newFleet(clients, changes int) *fleet {
	return &fleet{failed: make(chan error, clients), synced: make(chan struct{}, clients), arrived: make([]change, changes), complete: make(chan int, changes), began: time.Now()}
}

// next returns the number of a change that is about to be made. It is called from one goroutine.
func (f *fleet) next() int {
	n := f.made
	f.made++
	f.arrived[n].at = make([]atomic.Int64, len(f.clients))
	f.arrived[n].missing.Store(int64(len(f.clients)))
	return n
}

// connect adds clients, all at once, and returns when they have their first state.
func (f *fleet) connect(ctx context.Context, addr string, n int) error {
	for range n {
		i, first := len(f.clients), true
		z, err := dial(addr, func(message []byte, size int) {
			if first {
				first = false
				f.syncBytes.Store(int64(size))
				f.synced <- struct{}{}
				return
			}
			f.responses.Add(1)
			f.scan(i, message)
		})
		if err != nil {
			return err
		}
		f.clients = append(f.clients, z)
		f.wg.Go(func() {
			if err := z.run(); !f.closed.Load() {
				f.failed <- fmt.Errorf("client %d: %w", i, err)
			}
		})
	}
	for range n {
		select {
		case <-f.synced:
		case err := <-f.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// scan notes the changes in a response.
func (f *fleet) scan(client int, message []byte) {
	for {
		at := bytes.Index(message, []byte(markerPrefix))
		if at < 0 || len(message) < at+len(markerPrefix)+markerDigits {
			return
		}
		message = message[at+len(markerPrefix):]
		n, err := strconv.Atoi(string(message[:markerDigits]))
		if err != nil || n >= len(f.arrived) {
			continue
		}
		c := &f.arrived[n]
		if client >= len(c.at) {
			continue // from before this client was there
		}
		if c.at[client].CompareAndSwap(0, int64(time.Since(f.began))) && c.missing.Add(-1) == 0 {
			f.complete <- n
		}
	}
}

// await returns when all clients have n changes more.
func (f *fleet) await(n int) error {
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for range n {
		select {
		case <-f.complete:
		case err := <-f.failed:
			return err
		case <-timeout.C:
			return fmt.Errorf("a change does not reach all clients: %w", errTimeout)
		}
	}
	return nil
}

// latencies of a change that was acknowledged at that time: for each client, and for the last of them. One that was quicker than
// the acknowledgement took no time.
func (f *fleet) latencies(n int, acknowledged time.Duration) (each durations, last time.Duration) {
	for i := range f.arrived[n].at {
		d := max(0, time.Duration(f.arrived[n].at[i].Load())-acknowledged)
		each = append(each, d)
		last = max(last, d)
	}
	return each, last
}

func (f *fleet) close() {
	f.closed.Store(true)
	for _, z := range f.clients {
		z.conn.Close()
	}
	f.wg.Wait()
}
