package delta

import (
	"maps"
	"slices"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// State is the server's state of one resource type on one state-of-the-world stream.
type State struct {
	// immutable
	typeURL string
	whole   bool // each response has all that is subscribed; else only what is new
	holds   bool

	started bool
	named   bool // names have been given once: no names are then none
	names   []string
	at      uint64
	sent    map[string]*Entry
	owes    bool // what is gone is still to be left out

	nonces int
	status Status
}

// StateResponse is one message to send.
type StateResponse struct {
	Version, Nonce string
	// Changed are the names of what the client does not have like that.
	Changed []string
	*Batch
}

// StateOutput is what a step of a State asks its driver to do.
type StateOutput struct {
	Send  *StateResponse // if set, to be sent
	Nack  *Nack          // if set, to be counted
	Acked string         // if set, the nonce that has been acknowledged
	Stale bool           // the request answers a response that a later one has replaced
}

// NewState returns the state before the first request. With whole, each response has all that is subscribed, as the protocol
// demands of listeners and clusters; without, only what has changed. With hold, what is gone is left out only at Release.
func NewState(typeURL string, whole, hold bool) *State {
	return &State{typeURL: typeURL, whole: whole, holds: hold, sent: map[string]*Entry{}}
}

// TypeURL returns the type.
func (s *State) TypeURL() string { return s.typeURL }

// Started reports whether there has been a request.
func (s *State) Started() bool { return s.started }

// Has reports whether the client has been sent a resource.
func (s *State) Has(name string) bool { return s.sent[name] != nil }

// At is the number of the table's last change that this stream has got.
func (s *State) At() uint64 { return s.at }

// Status returns how far the client has come.
func (s *State) Status() Status { return s.status }

// Step takes a request.
func (s *State) Step(t *Table, r *discovery.DiscoveryRequest) StateOutput {
	var out StateOutput
	nonce := r.GetResponseNonce()
	if nonce != "" && s.started && nonce != s.status.Sent {
		out.Stale = true
		return out
	}
	fresh := !s.started || nonce == ""
	if !fresh {
		s.answer(r, &out)
	}
	s.started = true
	added := s.subscribe(r.GetResourceNames())
	if fresh || added {
		s.update(t, fresh, &out)
	}
	return out
}

func (s *State) answer(r *discovery.DiscoveryRequest, out *StateOutput) {
	nonce := r.GetResponseNonce()
	if detail := r.GetErrorDetail(); detail != nil {
		out.Nack = &Nack{Nonce: nonce, Message: detail.GetMessage()}
		s.status.Nacks++
		s.status.LastError = detail.GetMessage()
		return
	}
	out.Acked = nonce
	s.status.Acked, s.status.LastError = nonce, ""
}

// subscribe takes the names of a request and reports whether there are new ones. What is no longer named is forgotten, so that it
// is sent again if it is named again.
func (s *State) subscribe(names []string) (added bool) {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > 0 {
		s.named = true
	}
	if slices.Equal(names, s.names) {
		return false
	}
	before := s.names
	s.names = names
	if s.wildcard() {
		return true
	}
	for name := range s.sent {
		if _, wanted := slices.BinarySearch(names, name); !wanted {
			delete(s.sent, name)
		}
	}
	return slices.ContainsFunc(names, func(n string) bool { _, known := slices.BinarySearch(before, n); return !known })
}

func (s *State) wildcard() bool { return !s.named || slices.Contains(s.names, Wildcard) }

// Advance sends what the table has and the client has not.
func (s *State) Advance(t *Table) StateOutput {
	var out StateOutput
	if s.started && s.at < t.Seq() {
		s.update(t, false, &out)
	}
	return out
}

// Release leaves out what is gone, if Advance has held that back.
func (s *State) Release(t *Table) StateOutput {
	var out StateOutput
	if s.owes {
		s.owes = false
		b := s.wanted(t)
		s.remember(b.Entries)
		s.send(b, nil, &out)
	}
	return out
}

// Refresh sends again what the client has of the names; see Subscription.Refresh.
func (s *State) Refresh(t *Table, names []string) StateOutput {
	var out StateOutput
	again := false
	for _, name := range names {
		if _, has := s.sent[name]; has {
			delete(s.sent, name)
			again = true
		}
	}
	if again {
		s.update(t, false, &out)
	}
	return out
}

func (s *State) update(t *Table, fresh bool, out *StateOutput) {
	s.at = t.Seq()
	b := s.wanted(t)
	changed, gone := s.compare(b.Entries)
	switch {
	case !s.whole:
		if fresh {
			changed = b.Entries
		}
		s.remember(b.Entries)
		if len(changed) > 0 {
			s.send(&Batch{Entries: changed}, changed, out)
		}
	case s.holds && len(gone) > 0:
		s.owes = true
		if fresh || len(changed) > 0 {
			for _, e := range changed {
				s.sent[e.Name] = e
			}
			s.send(&Batch{Entries: append(slices.Clone(b.Entries), gone...)}, changed, out)
		}
	case fresh || len(changed)+len(gone) > 0:
		s.owes = false
		s.remember(b.Entries)
		s.send(b, changed, out)
	}
}

// wanted is all that is subscribed and exists. For a wildcard it is shared.
func (s *State) wanted(t *Table) *Batch {
	if s.wildcard() {
		return t.Since(0)
	}
	b := &Batch{}
	for _, name := range s.names {
		if e, ok := t.Get(name); ok {
			b.Entries = append(b.Entries, e)
		}
	}
	return b
}

func (s *State) compare(entries []*Entry) (changed, gone []*Entry) {
	now := make(map[string]struct{}, len(entries))
	for _, e := range entries {
		now[e.Name] = struct{}{}
		if s.sent[e.Name] != e {
			changed = append(changed, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.sent)) {
		if _, there := now[name]; !there {
			gone = append(gone, s.sent[name])
		}
	}
	return changed, gone
}

func (s *State) remember(entries []*Entry) {
	clear(s.sent)
	for _, e := range entries {
		s.sent[e.Name] = e
	}
}

func (s *State) send(b *Batch, changed []*Entry, out *StateOutput) {
	s.nonces++
	s.status.Sent = strconv.Itoa(s.nonces)
	out.Send = &StateResponse{Version: strconv.FormatUint(s.at, 10), Nonce: s.status.Sent, Batch: b}
	for _, e := range changed {
		out.Send.Changed = append(out.Send.Changed, e.Name)
	}
}
