package server

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Scopes decide which clients see which resources. Clients of the same scope share everything, also the encoded bytes.
type Scopes interface {
	// ScopeOf names the scope of a client for a type; empty is what is for everybody.
	ScopeOf(node *corev3.Node, peer Peer, typeURL string) string
	// Open is called when a scope gets its first client, Close when its last one has gone. Calls do not overlap. Open leads, now
	// or later, to PublishScope; what a closed scope had is forgotten.
	Open(scope string)
	Close(scope string)
}

// Update is a change of one type in a scope.
type Update struct {
	TypeURL string
	Changed []Resource
	Removed []string
}

// scope is a set of tables of its own, one for each type.
type scope struct {
	// immutable
	name string

	// publishing is held for writing while a publication is under way, for reading while a push looks for what is new: a push takes all
	// of a publication or nothing. Who holds those of several scopes took them in the order of their names.
	publishing sync.RWMutex

	// guarded by Server.opening
	clients int

	// guarded by Server.mu
	types   map[string]*topic
	members map[*stream]struct{}
	// serves is set with the first publication: until then clients wait, as they must not take nothing for an empty configuration.
	serves bool
	// withdrawn says that the next publication replaces everything.
	withdrawn bool
}

// enter puts a stream into its scope for a type; nil when it is in none.
func (st *stream) enter(typeURL string) *scope {
	s := st.server
	if s.cfg.Scopes == nil {
		return nil
	}
	name := s.cfg.Scopes.ScopeOf(st.node, st.peer, typeURL)
	if name == "" {
		return nil
	}
	if at := slices.IndexFunc(st.scopes, func(sc *scope) bool { return sc.name == name }); at >= 0 {
		return st.scopes[at]
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	sc := s.scope(name)
	sc.members[st] = struct{}{}
	s.mu.Unlock()
	at, _ := slices.BinarySearchFunc(st.scopes, name, func(sc *scope, name string) int { return cmp.Compare(sc.name, name) })
	st.scopes = slices.Insert(st.scopes, at, sc)
	if sc.clients++; sc.clients == 1 {
		s.cfg.Scopes.Open(name)
	}
	return sc
}

// scope returns the one of that name. Callers hold s.mu.
func (s *Server) scope(name string) *scope {
	sc := s.scopes[name]
	if sc == nil {
		sc = &scope{name: name, types: map[string]*topic{}, members: map[*stream]struct{}{}}
		s.scopes[name] = sc
	}
	return sc
}

// exit takes a stream out of its scopes.
func (st *stream) exit() {
	s := st.server
	for _, sc := range st.scopes {
		s.opening.Lock()
		s.mu.Lock()
		delete(sc.members, st)
		s.mu.Unlock()
		if sc.clients--; sc.clients == 0 {
			s.cfg.Scopes.Close(sc.name)
			s.mu.Lock()
			delete(s.scopes, sc.name)
			s.mu.Unlock()
		}
		s.opening.Unlock()
	}
	st.scopes = nil
}

// serves reports whether a scope has something to send; what is for everybody always has.
func (s *Server) serves(sc *scope) bool {
	if sc == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return sc.serves
}

// PublishScope applies changes to the resources of a scope that belong together, and wakes the scope's clients that they concern,
// and those that wait for its first resources. A scope without clients is left alone: it is published whole when it is opened.
// Like Publish it costs what changed and waits for nobody. Calls for one scope must not overlap.
func (s *Server) PublishScope(name string, updates ...Update) {
	s.mu.Lock()
	sc := s.scopes[name]
	if sc == nil {
		s.mu.Unlock()
		return
	}
	replace := sc.withdrawn
	sc.withdrawn = false
	s.mu.Unlock()
	now := s.cfg.Now()
	for st := range s.apply(sc, updates, replace) {
		st.wakeUp(now)
	}
}

// apply makes a publication, and returns the streams to be woken.
func (s *Server) apply(sc *scope, updates []Update, replace bool) map[*stream]struct{} {
	sc.publishing.Lock()
	defer sc.publishing.Unlock()
	wake := map[*stream]struct{}{}
	if replace {
		updates = s.replacing(sc, updates)
	}
	for _, u := range updates {
		for _, st := range s.topic(sc, u.TypeURL).publish(u.Changed, u.Removed) {
			wake[st] = struct{}{}
		}
	}
	// A scope serves when its first state is whole: a client that comes back in between would be told that what it has is gone.
	s.mu.Lock()
	if !sc.serves {
		sc.serves = true
		maps.Copy(wake, sc.members)
	}
	s.mu.Unlock()
	return wake
}

// atOnce runs a push in which nothing is published to the stream's scopes: what it writes is written afterwards, so that publications
// never wait for a client.
func (st *stream) atOnce(g messenger, push func(messenger) error) error {
	if len(st.scopes) == 0 {
		return push(g)
	}
	var later written
	for _, sc := range st.scopes {
		sc.publishing.RLock()
	}
	err := push(&later)
	for _, sc := range st.scopes {
		sc.publishing.RUnlock()
	}
	for _, m := range later {
		if err == nil {
			err = g.SendMsg(m)
		}
	}
	return err
}

// written are messages that are yet to be sent.
type written []any

// SendMsg implements messenger.
func (w *written) SendMsg(m any) error {
	*w = append(*w, m)
	return nil
}

// replacing turns the whole state of a scope into the difference to what it had.
func (s *Server) replacing(sc *scope, updates []Update) []Update {
	s.mu.Lock()
	topics := maps.Clone(sc.types)
	s.mu.Unlock()
	out := make([]Update, 0, len(topics))
	for _, u := range updates {
		if t := topics[u.TypeURL]; t != nil {
			u = t.difference(u)
			delete(topics, u.TypeURL)
		}
		out = append(out, u)
	}
	for _, t := range topics {
		out = append(out, t.difference(Update{TypeURL: t.typeURL}))
	}
	return out
}

// difference turns the whole state of a type into the difference to what it had.
func (t *topic) difference(whole Update) Update {
	t.mu.Lock()
	defer t.mu.Unlock()
	out, kept := Update{TypeURL: whole.TypeURL}, map[string]struct{}{}
	for _, r := range whole.Changed {
		kept[r.Name] = struct{}{}
		if e, ok := t.table.Get(r.Name); !ok || r.Version == "" || e.Version != r.Version {
			out.Changed = append(out.Changed, r)
		}
	}
	for _, e := range t.table.All() {
		if _, ok := kept[e.Name]; !ok {
			out.Removed = append(out.Removed, e.Name)
		}
	}
	return out
}

// WithdrawScope says that what a scope was made for is gone. Its clients keep what they have: they are about to go, too, and an
// empty configuration would only fail what they still serve. If it comes back, the next PublishScope is its whole state.
func (s *Server) WithdrawScope(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sc := s.scopes[name]; sc != nil {
		sc.withdrawn = sc.serves
	}
}

// renewed are the clusters that have been sent and whose endpoints have not been sent since.
type renewed struct{ names map[string]struct{} }

// sent notes that a resource has been sent.
func (r *renewed) sent(typeURL, name string) {
	switch rank(typeURL) {
	case clusterRank:
		if r.names == nil {
			r.names = map[string]struct{}{}
		}
		r.names[name] = struct{}{}
	case endpointRank:
		delete(r.names, name)
	}
}

func (r *renewed) take() []string {
	names := slices.Sorted(maps.Keys(r.names))
	r.names = nil
	return names
}

// Order of Envoy's types within a push: a client is told of what is referred to before what refers to it.
const listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"

const (
	clusterRank = iota
	endpointRank
	listenerRank
	routeRank
	otherRank
)

func rank(typeURL string) int {
	switch shortType(typeURL) {
	case "cds":
		return clusterRank
	case "eds":
		return endpointRank
	case "lds":
		return listenerRank
	case "rds":
		return routeRank
	}
	return otherRank
}

// holdsRemovals reports whether others refer to resources of the type, so that they go last.
func holdsRemovals(typeURL string) bool {
	return rank(typeURL) == clusterRank || rank(typeURL) == endpointRank
}

// releases reports whether a type refers to those that hold removals: once it is up to date, they may go.
func releases(typeURL string) bool {
	return rank(typeURL) == listenerRank || rank(typeURL) == routeRank
}

// partial reports whether a state-of-the-world response of the type need not have all that is subscribed.
func partial(typeURL string) bool {
	return rank(typeURL) == endpointRank || rank(typeURL) == routeRank || shortType(typeURL) == "sds"
}
