package server

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// subject is one type on a stream, in one of the forms of xDS: R are its requests, O is what a step of it asks for.
type subject[R, O any] interface {
	TypeURL() string
	Started() bool
	Has(name string) bool
	// Holds is whether Release may have something to say.
	Holds() bool
	Status() delta.Status

	Step(t *delta.Table, r R) O
	Advance(t *delta.Table) O
	Release(t *delta.Table) O
	Refresh(t *delta.Table, names []string) O

	keeps() *kept
}

// kept is what is kept of a subject in every form of xDS.
type kept struct {
	topic *topic
	scope *scope // nil: what is for everybody
	last  TypeStatus
	// followed is how the topic knows the stream; with the topic's mu held
	followed following
	pushes   pushes
}

// following is whether a topic knows a stream, and by what it wakes it.
type following int

const (
	unknown following = iota
	known             // by keys
	wild              // by every change
)

func (k *kept) keeps() *kept { return k }

// order is what a stream sends, in its order: first what is referred to, then what refers to it, then the removals.
type order[S subject[R, O], R interface{ GetTypeUrl() string }, O any] struct {
	*stream
	// immutable: enroll makes the subject of a type, do makes one step of a subject and writes what it asks for
	enroll func(typeURL string, k kept) S
	do     func(g messenger, s S, step func(*delta.Table) O) error

	// guarded by turn
	subjects map[string]S
	list     []S // in the order in which types are sent
	parked   []R // of scopes that have nothing yet
}

// take takes a request.
func (o *order[S, R, O]) take(g messenger, r R) error {
	s, ok := o.subjects[r.GetTypeUrl()]
	if !ok {
		s = o.add(r.GetTypeUrl())
	}
	if !o.server.serves(s.keeps().scope) {
		o.parked = append(o.parked, r)
		return nil
	}
	if err := o.unpark(g); err != nil { // what was asked for before is answered before
		return err
	}
	return o.step(g, s, r)
}

func (o *order[S, R, O]) add(typeURL string) S {
	sc := o.enter(typeURL)
	s := o.enroll(typeURL, kept{
		topic: o.server.topic(sc, typeURL), scope: sc, last: TypeStatus{TypeURL: typeURL}, pushes: o.server.cfg.Metrics.pushesOf(typeURL),
	})
	if o.subjects == nil {
		o.subjects = map[string]S{}
	}
	o.subjects[typeURL] = s
	at, _ := slices.BinarySearchFunc(o.list, rank(typeURL)+1, func(s S, r int) int { return rank(s.TypeURL()) - r })
	o.list = slices.Insert(o.list, at, s)
	return s
}

func (o *order[S, R, O]) step(g messenger, s S, r R) error {
	waited := len(o.warming.names) > 0
	err := o.do(g, s, func(t *delta.Table) O { return s.Step(t, r) })
	if err == nil {
		err = o.renew(g)
	}
	switch {
	case err != nil || o.waits(listenerType):
	case waited:
		err = o.push(g)
	case releases(s.TypeURL()):
		err = o.release(g)
	}
	return err
}

// push sends what each subject lacks.
func (o *order[S, R, O]) push(g messenger) error {
	since := o.takeSince()
	if !since.IsZero() {
		o.server.cfg.Metrics.queueTime.Observe(o.server.cfg.Now().Sub(since).Seconds())
	}
	if err := o.unpark(g); err != nil {
		return err
	}
	complete := false
	err := o.atOnce(g, func(g messenger) (err error) {
		complete, err = o.advance(g)
		return err
	})
	if err != nil || !complete {
		return err
	}
	if !since.IsZero() {
		o.server.cfg.Metrics.convergence.Observe(o.server.cfg.Now().Sub(since).Seconds())
	}
	return nil
}

// unpark takes up requests that had to wait for their scope's first resources.
func (o *order[S, R, O]) unpark(g messenger) error {
	parked := o.parked
	o.parked = nil
	for _, r := range parked {
		if err := o.take(g, r); err != nil {
			return err
		}
	}
	return nil
}

// advance brings all subjects up to date, but for those that have to wait until clusters are warm.
func (o *order[S, R, O]) advance(g messenger) (complete bool, err error) {
	for _, s := range o.list {
		if o.waits(s.TypeURL()) {
			return false, nil // the rest comes when the clusters are warm
		}
		if err := o.do(g, s, s.Advance); err != nil {
			return false, err
		}
		if rank(s.TypeURL()) == endpointRank {
			if err := o.renew(g); err != nil {
				return false, err
			}
		}
	}
	return true, o.release(g)
}

// renew sends endpoints again whose clusters have been sent.
func (o *order[S, R, O]) renew(g messenger) error {
	for _, s := range o.list {
		if rank(s.TypeURL()) != endpointRank || !s.Started() || len(o.renewed.names) == 0 {
			continue
		}
		names := o.renewed.take()
		if err := o.do(g, s, func(t *delta.Table) O { return s.Refresh(t, names) }); err != nil {
			return err
		}
	}
	return nil
}

// release sends the removals that were held back.
func (o *order[S, R, O]) release(g messenger) error {
	for _, s := range o.list {
		if !s.Holds() {
			continue
		}
		if err := o.do(g, s, s.Release); err != nil {
			return err
		}
	}
	return nil
}

// heard takes note of what a step has found out: the client's rejection, if it was one, and whether there is something to be sent or
// something has been acknowledged.
func (o *order[S, R, O]) heard(s S, nack *delta.Nack, sent, acked bool) {
	if nack != nil {
		o.rejected(s.TypeURL(), nack)
		if rank(s.TypeURL()) == clusterRank {
			o.warming.end()
		}
	}
	// Before the write: a client that reads slowly is one that has been sent something.
	o.record(&s.keeps().last, s.Status(), sent, acked || nack != nil)
}

// sending takes note of clusters or endpoints that are about to be sent.
func (o *order[S, R, O]) sending(s S, names []string) {
	at := slices.IndexFunc(o.list, func(s S) bool { return rank(s.TypeURL()) == endpointRank && s.Started() })
	if at < 0 {
		o.noteSent(s.TypeURL(), names, nil, nil)
	} else {
		o.noteSent(s.TypeURL(), names, o.list[at].keeps().topic, o.list[at].Has)
	}
}
