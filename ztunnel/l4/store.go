package l4

import (
	"context"
	"sync/atomic"
)

// Store holds the current State. Only its Builder publishes.
type Store struct {
	current atomic.Pointer[State]
}

// NewStore starts with an empty State.
func NewStore() *Store {
	s := &Store{}
	s.current.Store(&State{newer: make(chan struct{})})
	return s
}

// Load returns the current State. Load it once per decision and keep it.
func (s *Store) Load() *State { return s.current.Load() }

// publish replaces the State and wakes who waits for a change.
func (s *Store) publish(next *State) {
	next.newer = make(chan struct{})
	old := s.current.Swap(next)
	close(old.newer)
}

// Wait returns the first State, from the current one on, for which ok holds.
func (s *Store) Wait(ctx context.Context, ok func(*State) bool) (*State, error) {
	for {
		state := s.Load()
		if ok(state) {
			return state, nil
		}
		select {
		case <-state.Superseded():
		case <-ctx.Done():
			return state, ctx.Err()
		}
	}
}
