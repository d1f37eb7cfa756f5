package certs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// ErrClosed is what Get returns after Close.
var ErrClosed = errors.New("certificate manager is closed")

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 150 * time.Second
	// newcomer is how long callers wait through failures for an identity's first certificate: a pod may ask for it before
	// the CA has heard of the pod.
	newcomer = 5 * time.Second
	// issueTimeout bounds one request to the CA.
	issueTimeout = 30 * time.Second
)

// ManagerConfig of NewManager.
type ManagerConfig struct {
	Log *slog.Logger
}

// Manager keeps one valid certificate for each identity that was asked for: it renews when half of it is over, and when
// the CA fails it tries again with growing pauses while the old certificate serves until it expires. An expired
// certificate is never handed out.
type Manager struct {
	issuer Issuer
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // ends the renewals, on Close
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex // guards the rest
	closed  bool
	entries map[spiffe.ID]*entry
}

// entry is one identity. Its fields are guarded by Manager.mu.
type entry struct {
	current *Workload // nil until the first success
	failure error     // of the last attempt; nil after a success
	since   time.Time // when it was first asked for
	// answered is closed by the next outcome, good or bad, and then replaced.
	answered chan struct{}
	stop     context.CancelFunc
}

// State is one identity's for the configuration dump.
type State struct {
	Identity spiffe.ID
	// State is "Initializing", "Available" or "Unavailable: " and the reason.
	State string
	// Workload is the certificate in force, or nil.
	Workload *Workload
}

// NewManager starts with no identity. Close it to end its renewals.
func NewManager(issuer Issuer, config ManagerConfig) *Manager {
	m := &Manager{issuer: issuer, log: config.Log, entries: map[spiffe.ID]*entry{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Get returns a valid certificate, waiting for the first one. It fails when the CA has refused for some seconds, and when
// a certificate has expired and could not be renewed.
func (m *Manager) Get(ctx context.Context, id spiffe.ID) (*Workload, error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	e, ok := m.entries[id]
	if !ok {
		e = m.startLocked(id) //nolint:contextcheck // renewals outlive the caller that asked first
	}
	m.mu.Unlock()
	for {
		m.mu.Lock()
		current, failure, answered := e.current, e.failure, e.answered
		patient := current == nil && time.Since(e.since) < newcomer
		m.mu.Unlock()
		if valid(current) {
			return current, nil
		}
		if failure != nil && !patient {
			return nil, fmt.Errorf("no certificate for %s: %w", id, failure)
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a certificate for %s: %w", id, cmp.Or(failure, context.Cause(ctx)))
		case <-m.ctx.Done():
			return nil, ErrClosed
		}
	}
}

func valid(w *Workload) bool { return w != nil && time.Now().Before(w.NotAfter()) }

// startLocked makes the entry and its one goroutine.
func (m *Manager) startLocked(id spiffe.ID) *entry {
	ctx, stop := context.WithCancel(m.ctx)
	e := &entry{answered: make(chan struct{}), stop: stop, since: time.Now()}
	m.entries[id] = e
	m.done.Go(func() { m.maintain(ctx, id, e) })
	return e
}

// maintain renews one identity until ctx ends.
func (m *Manager) maintain(ctx context.Context, id spiffe.ID, e *entry) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		issued, err := m.issue(ctx, id)
		if ctx.Err() != nil {
			return
		}
		var pause time.Duration
		if err != nil {
			pause, backoff = jitter(backoff), min(2*backoff, maxBackoff)
			m.log.Warn("certificate not issued", "identity", id.String(), "error", err, "retry", pause.String())
		} else {
			backoff = firstBackoff
			pause = renewal(issued, time.Now())
		}
		m.mu.Lock()
		e.failure = err
		if issued != nil {
			e.current = issued
		}
		close(e.answered)
		e.answered = make(chan struct{})
		m.mu.Unlock()
		wait(ctx, pause)
	}
}

// renewal is how long after now a certificate that was issued just now is renewed: at half of the time that is left of it, not of the
// time for which it is valid. A CA lets that begin some minutes in the past, as clocks differ; of a short-lived certificate, its half
// would be over already.
func renewal(issued *Workload, now time.Time) time.Duration {
	begin, end := issued.NotBefore(), issued.NotAfter()
	if begin.Before(now) {
		begin = now
	}
	return max(end.Sub(now)-end.Sub(begin)/2, time.Second)
}

func (m *Manager) issue(ctx context.Context, id spiffe.ID) (*Workload, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	issued, err := m.issuer.Issue(ctx, id)
	if err == nil && !valid(issued) {
		return nil, errors.New("the CA issued a certificate that has expired: compare the clocks")
	}
	if err != nil {
		return nil, err
	}
	return issued, nil
}

// jitter spreads retries of many identities: between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Forget ends the renewal of an identity that no workload of the node has any more.
func (m *Manager) Forget(id spiffe.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[id]; ok {
		e.stop()
		delete(m.entries, id)
	}
}

// Snapshot lists all identities, sorted.
func (m *Manager) Snapshot() []State {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []State
	for id, e := range m.entries {
		state := State{Identity: id, State: "Initializing", Workload: e.current}
		switch {
		case valid(e.current):
			state.State = "Available"
		case e.failure != nil:
			state.State = "Unavailable: " + e.failure.Error()
		}
		out = append(out, state)
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.Identity.String(), b.Identity.String()) })
	return out
}

// Close ends all renewals and waits for them.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.done.Wait()
}
