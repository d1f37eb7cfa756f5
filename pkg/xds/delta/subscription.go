package delta

import (
	"maps"
	"slices"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Subscription is the server's state of one resource type on one stream.
type Subscription struct {
	typeURL string

	started  bool
	wildcard bool
	onDemand bool                // aliases are sent, and misses answered
	at       uint64              // the stream has what the table had at this number
	keys     map[string]struct{} // asked for by name, alias or group; on demand
	implied  map[string]struct{} // groups that come along unasked; on demand
	held     map[string]string   // resources the client has, with versions: it gets their changes too; on demand

	holds    bool
	removals map[string]struct{} // held back

	nonces      int
	outstanding []string // sent and not answered, oldest first
	status      Status
}

// Status is how far the client has come, for /debug/syncz.
type Status struct {
	Sent, Acked string // nonces
	Nacks       int
	LastError   string // of the last NACK; cleared by an ACK
}

// Response is one message to send.
type Response struct {
	Nonce string
	*Batch
}

// Nack is a refusal by the client. Its earlier resources stay valid at the client, and the state here does not change.
type Nack struct{ Nonce, Message string }

// Output is what a Step asks its driver to do.
type Output struct {
	Send   *Response // if set, to be sent
	Nack   *Nack     // if set, to be counted
	Acked  string    // if set, the nonce that has been acknowledged
	Stale  bool      // the nonce was not outstanding: neither ACK nor NACK
	Demand []string  // keys by which this stream is now to be woken, when Publish says that they are concerned
	Forget []string  // keys by which it no longer is
}

// NewSubscription returns the state before the first request. implied are groups whose members an on-demand client gets
// unasked; they do not apply to a wildcard.
func NewSubscription(typeURL string, implied ...string) *Subscription {
	s := &Subscription{typeURL: typeURL, keys: map[string]struct{}{}, implied: map[string]struct{}{}, held: map[string]string{}}
	for _, k := range implied {
		s.implied[k] = struct{}{}
	}
	return s
}

// HoldRemovals makes the subscription keep back what it would remove, until Release: what other types still refer to must not go
// before they have changed.
func (s *Subscription) HoldRemovals() { s.holds, s.removals = true, map[string]struct{}{} }

// Holds reports whether there are removals that are held back.
func (s *Subscription) Holds() bool { return len(s.removals) > 0 }

// Release sends what was held back and is still gone.
func (s *Subscription) Release(t *Table) Output {
	var out Output
	b := &Batch{Aliases: s.onDemand}
	for _, name := range slices.Sorted(maps.Keys(s.removals)) {
		_, exists := t.Get(name)
		if _, held := s.held[name]; !held && (!exists || !s.wildcard) {
			b.Removed = append(b.Removed, name)
		}
	}
	clear(s.removals)
	if !b.Empty() {
		s.send(b, &out)
	}
	return out
}

// Refresh sends again what the client has of the names: a client that is told of a cluster anew waits for the cluster's endpoints,
// though it may have them, and does not ask.
func (s *Subscription) Refresh(t *Table, names []string) Output {
	var out Output
	b := newBatchBuilder(s.onDemand)
	for _, name := range names {
		if _, held := s.held[name]; held {
			if e, ok := t.Get(name); ok {
				s.add(b, []*Entry{e}, true, &out)
			}
		}
	}
	if !b.empty() {
		s.send(b.finish(), &out)
	}
	return out
}

// sendHolding is send, but for removals when they are held. An answer is sent even if nothing is left of it.
func (s *Subscription) sendHolding(b *Batch, answer bool, out *Output) {
	if s.holds && len(b.Removed) > 0 {
		for _, name := range b.Removed {
			s.removals[name] = struct{}{}
		}
		b = b.additions()
		if b.Empty() && !answer {
			return
		}
	}
	s.send(b, out)
}

// TypeURL returns the type.
func (s *Subscription) TypeURL() string { return s.typeURL }

// Started reports whether there has been a request.
func (s *Subscription) Started() bool { return s.started }

// Has reports whether the client has a resource, as far as that is kept: on demand.
func (s *Subscription) Has(name string) bool {
	_, held := s.held[name]
	return held || s.wildcard
}

// Wildcard reports whether every change of the table concerns this stream.
func (s *Subscription) Wildcard() bool { return s.wildcard }

// At is the number of the table's last change that this stream has got.
func (s *Subscription) At() uint64 { return s.at }

// Status returns how far the client has come.
func (s *Subscription) Status() Status { return s.status }

// Step takes a request. The response carries whatever the request asks for and, for a wildcard, all that has changed.
func (s *Subscription) Step(t *Table, r *discovery.DeltaDiscoveryRequest) Output {
	var out Output
	if !s.started {
		s.started = true
		s.start(t, r, &out)
		return out
	}
	s.answer(r, &out)
	s.change(t, r, &out)
	return out
}

// Advance sends what has changed in the table since the last response.
func (s *Subscription) Advance(t *Table) Output {
	var out Output
	if s.started && s.at < t.Seq() {
		s.advance(t, &out)
	}
	return out
}

// start handles the first request of a type on a stream (xDS spec: an empty subscription is a wildcard; `*` both subscribed
// and unsubscribed is on-demand with nothing yet).
func (s *Subscription) start(t *Table, r *discovery.DeltaDiscoveryRequest, out *Output) {
	subscribe, unsubscribe := r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe()
	star := slices.Contains(subscribe, Wildcard)
	s.wildcard = (len(subscribe) == 0 && len(unsubscribe) == 0) || (star && !slices.Contains(unsubscribe, Wildcard))
	initial := r.GetInitialResourceVersions()
	if s.wildcard {
		s.startWildcard(t, initial, out)
		return
	}
	s.onDemand = true
	s.at = t.Seq()
	asked := without(subscribe, Wildcard)
	// On reconnect the client names what it holds or waits for; it stays subscribed to that.
	for name, version := range initial {
		asked = append(asked, name)
		if version != "" {
			s.held[name] = version
		}
	}
	for k := range s.implied {
		out.Demand = append(out.Demand, k)
	}
	slices.Sort(out.Demand)
	b := s.demand(t, asked, false, out)
	for _, k := range slices.Sorted(maps.Keys(s.implied)) {
		s.add(b, t.Lookup(k), false, out)
	}
	s.send(b.finish(), out)
}

func (s *Subscription) startWildcard(t *Table, initial map[string]string, out *Output) {
	s.at = t.Seq()
	if len(initial) == 0 {
		s.send(t.Since(0), out)
		return
	}
	b := &Batch{}
	for _, e := range t.All() {
		if v, ok := initial[e.Name]; !ok || v == "" || v != e.Version {
			b.Entries = append(b.Entries, e)
		}
	}
	for name := range initial {
		if _, ok := t.Get(name); !ok {
			b.Removed = append(b.Removed, name)
		}
	}
	slices.Sort(b.Removed)
	s.sendHolding(b, true, out)
}

// answer handles the nonce of a request. Responses are answered in order, so an answer settles the earlier ones too.
func (s *Subscription) answer(r *discovery.DeltaDiscoveryRequest, out *Output) {
	nonce := r.GetResponseNonce()
	if nonce == "" {
		return
	}
	at := slices.Index(s.outstanding, nonce)
	if at < 0 {
		out.Stale = true
		return
	}
	s.outstanding = slices.Delete(s.outstanding, 0, at+1)
	if detail := r.GetErrorDetail(); detail != nil {
		out.Nack = &Nack{Nonce: nonce, Message: detail.GetMessage()}
		s.status.Nacks++
		s.status.LastError = detail.GetMessage()
		return
	}
	out.Acked = nonce
	s.status.Acked = nonce
	s.status.LastError = ""
}

// change handles what a later request subscribes and unsubscribes. It counts whatever the nonce is.
func (s *Subscription) change(t *Table, r *discovery.DeltaDiscoveryRequest, out *Output) {
	subscribe, unsubscribe := r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe()
	if len(subscribe) == 0 && len(unsubscribe) == 0 {
		return
	}
	for _, k := range unsubscribe {
		if k == Wildcard {
			s.leaveWildcard(t)
			continue
		}
		delete(s.keys, k)
		delete(s.removals, k)
		s.drop(k, out)
	}
	if slices.Contains(subscribe, Wildcard) && !slices.Contains(unsubscribe, Wildcard) {
		s.joinWildcard(t, out)
		return
	}
	asked := without(subscribe, Wildcard)
	if len(asked) == 0 {
		return
	}
	if s.wildcard {
		// Everything is subscribed already; asking again means that it is wanted again.
		b := newBatchBuilder(false)
		s.lookup(t, b, asked, true, out)
		s.send(b.finish(), out)
		return
	}
	s.onDemand = true
	s.send(s.demand(t, asked, true, out).finish(), out)
}

func (s *Subscription) leaveWildcard(t *Table) {
	if !s.wildcard {
		return
	}
	s.wildcard, s.onDemand = false, true
	s.at = t.Seq()
}

func (s *Subscription) joinWildcard(t *Table, out *Output) {
	if s.wildcard {
		return
	}
	s.wildcard = true
	out.Forget = append(out.Forget, slices.Sorted(maps.Keys(s.keys))...)
	out.Forget = append(out.Forget, slices.Sorted(maps.Keys(s.held))...)
	clear(s.keys)
	clear(s.held)
	s.at = t.Seq()
	s.send(t.Since(0), out)
}

// demand subscribes keys and collects what they mean. again sends also what the client holds in the same version.
func (s *Subscription) demand(t *Table, asked []string, again bool, out *Output) *batchBuilder {
	slices.Sort(asked)
	asked = slices.Compact(asked)
	for _, k := range asked {
		if _, known := s.keys[k]; !known {
			s.keys[k] = struct{}{}
			out.Demand = append(out.Demand, k)
		}
	}
	b := newBatchBuilder(s.onDemand)
	s.lookup(t, b, asked, again, out)
	return b
}

func (s *Subscription) lookup(t *Table, b *batchBuilder, keys []string, again bool, out *Output) {
	for _, k := range keys {
		if !t.has(k) {
			// A miss, or a resource that vanished while the client was away.
			delete(s.held, k)
			b.remove(k)
			continue
		}
		s.add(b, t.Lookup(k), again, out)
	}
}

// add puts entries into a batch, but for those the client holds.
func (s *Subscription) add(b *batchBuilder, found []*Entry, again bool, out *Output) {
	for _, e := range found {
		if v, held := s.held[e.Name]; held && !again && v != "" && v == e.Version {
			continue
		}
		b.add(e)
		s.hold(e, out)
	}
}

// hold records that the client has an entry. Having got it is being subscribed to it.
func (s *Subscription) hold(e *Entry, out *Output) {
	if s.wildcard {
		return
	}
	if _, held := s.held[e.Name]; !held {
		out.Demand = append(out.Demand, e.Name)
	}
	s.held[e.Name] = e.Version
}

// drop records that the client no longer has an entry.
func (s *Subscription) drop(name string, out *Output) {
	delete(s.held, name)
	if _, asked := s.keys[name]; !asked {
		out.Forget = append(out.Forget, name)
	}
}

// advance brings the stream from its number to the table's.
func (s *Subscription) advance(t *Table, out *Output) {
	from := s.at
	s.at = t.Seq()
	if s.wildcard {
		s.sendHolding(t.Since(from), false, out)
		return
	}
	b := newBatchBuilder(s.onDemand)
	for _, name := range t.changedSince(from) {
		e, exists := t.Get(name)
		_, held := s.held[name]
		switch {
		case exists && s.wants(e):
			// With a service come its workloads, which may not have changed themselves.
			found := map[string]*Entry{}
			t.collect(e, found)
			delete(found, name)
			s.add(b, slices.Collect(maps.Values(found)), false, out)
			s.add(b, []*Entry{e}, true, out)
		case held:
			s.drop(name, out)
			b.remove(name)
		}
	}
	if !b.empty() {
		slices.Sort(out.Demand)
		s.sendHolding(b.finish(), false, out)
	}
}

// wants reports whether an entry is subscribed: by its name, by an alias, or through a group.
func (s *Subscription) wants(e *Entry) bool {
	if s.has(e.Name) {
		return true
	}
	for k := range e.secondary {
		if s.has(k) {
			return true
		}
	}
	return false
}

func (s *Subscription) has(key string) bool {
	if _, asked := s.keys[key]; asked {
		return true
	}
	if _, held := s.held[key]; held {
		return true
	}
	_, ok := s.implied[key]
	return ok
}

func (s *Subscription) send(b *Batch, out *Output) {
	s.nonces++
	nonce := strconv.Itoa(s.nonces)
	s.outstanding = append(s.outstanding, nonce)
	s.status.Sent = nonce
	out.Send = &Response{Nonce: nonce, Batch: b}
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}
