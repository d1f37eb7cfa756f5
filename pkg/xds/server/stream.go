package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// stream is one client's connection. Two goroutines serve it in turns, one the client's requests and the other what is published:
// whose turn it is steps the subscriptions and writes.
type stream struct {
	// immutable
	server    *Server
	id        uint64
	peer      Peer
	connected time.Time
	wake      chan struct{} // holds one token: something has been published

	// guarded by turn; keys also needs the topic's mu
	turn   sync.Mutex
	failed bool // there are no more turns
	subs   map[string]*subscription
	list   []*subscription // in the order in which types are sent
	keys   map[demanded]struct{}
	// topics are those that know the stream; scopes those it is a member of
	topics  map[*topic]struct{}
	scopes  []*scope
	parked  []*discovery.DeltaDiscoveryRequest // of scopes that have nothing yet
	renewed renewed
	warming warming

	// guarded by mu: for wakeUp and Clients
	mu     sync.Mutex
	since  time.Time // of the oldest publication not taken up yet
	node   *corev3.Node
	status []TypeStatus
}

// demanded is a key by which a stream is woken.
type demanded struct {
	of  *topic
	key string
}

type subscription struct {
	*delta.Subscription
	topic *topic
	scope *scope // nil: what is for everybody
	last  TypeStatus
}

// wakeUp says that there is something to send. It never blocks: a token that is there already stands for all.
func (st *stream) wakeUp(now time.Time) {
	st.mu.Lock()
	if st.since.IsZero() {
		st.since = now
	}
	st.mu.Unlock()
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// takeSince returns when the oldest publication came that the stream now takes up; zero if there is none.
func (st *stream) takeSince() time.Time {
	st.mu.Lock()
	defer st.mu.Unlock()
	since := st.since
	st.since = time.Time{}
	return since
}

// open authenticates and registers a stream; close undoes it.
func (s *Server) open(ctx context.Context) (*stream, error) {
	peer, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	st := &stream{
		server: s, peer: peer, connected: s.cfg.Now(), wake: make(chan struct{}, 1),
		subs: map[string]*subscription{}, keys: map[demanded]struct{}{}, topics: map[*topic]struct{}{},
	}
	s.mu.Lock()
	s.nextID++
	st.id = s.nextID
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	s.cfg.Metrics.connected.Inc()
	return st, nil
}

func (st *stream) close() {
	st.server.mu.Lock()
	delete(st.server.streams, st)
	st.server.mu.Unlock()
	for t := range st.topics {
		t.leave(st)
	}
	st.warming.end()
	st.exit()
	st.server.cfg.Metrics.connected.Dec()
}

// errEnded ends a goroutine whose turn does not come any more.
var errEnded = errors.New("the stream has failed")

// inTurn runs one step of the stream. The first that fails is the last one.
func (st *stream) inTurn(step func() error) error {
	st.turn.Lock()
	defer st.turn.Unlock()
	if st.failed {
		return errEnded
	}
	err := step()
	st.failed = err != nil
	return err
}

// serve takes turns until the stream ends. Requests are handled where they are read: an acknowledgement needs no other goroutine. That
// one ends with the stream's context, which gRPC cancels when the handler returns.
func serve[R any](st *stream, receive func() (R, error), request func(R) error, push func() error) error {
	ended := make(chan error, 1)
	go func() {
		for {
			r, err := receive()
			if err == nil {
				err = st.inTurn(func() error { return request(r) })
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for {
		select {
		case <-st.wake:
			if err := st.inTurn(push); err != nil && !errors.Is(err, errEnded) {
				return endOf(err)
			}
		case err := <-ended:
			return endOf(err)
		}
	}
}

// endOf turns the end of a stream into the handler's result.
func endOf(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// DeltaAggregatedResources serves incremental xDS to one client.
func (s *Server) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st, err := s.open(g.Context())
	if err != nil {
		return err
	}
	defer st.close()
	request := func(r *discovery.DeltaDiscoveryRequest) error { return st.request(g, r) }
	return serve(st, g.Recv, request, func() error { return st.push(g) })
}

// messenger is the part of a gRPC stream that writes.
type messenger interface{ SendMsg(m any) error }

// identify takes the node of a stream's first request.
func (st *stream) identify(node *corev3.Node, check func(*corev3.Node, Peer) error) error {
	if st.node != nil {
		return nil
	}
	if err := check(node, st.peer); err != nil {
		return err
	}
	st.mu.Lock()
	st.node = node
	st.mu.Unlock()
	st.server.cfg.Log.Info("xds client connected", "node", node.GetId(), "connection", st.id)
	return nil
}

func (st *stream) request(g messenger, r *discovery.DeltaDiscoveryRequest) error {
	if err := st.identify(r.GetNode(), admit); err != nil {
		return err
	}
	sub := st.subs[r.GetTypeUrl()]
	if sub == nil {
		sub = st.newSubscription(r.GetTypeUrl())
	}
	if !st.server.serves(sub.scope) {
		st.parked = append(st.parked, r)
		return nil
	}
	return st.step(g, sub, r)
}

func (st *stream) newSubscription(typeURL string) *subscription {
	var implied []string
	if st.server.cfg.Implied != nil {
		implied = st.server.cfg.Implied(st.node, typeURL)
	}
	sc := st.enter(typeURL)
	sub := &subscription{
		Subscription: delta.NewSubscription(typeURL, implied...),
		topic:        st.server.topic(sc, typeURL),
		scope:        sc,
		last:         TypeStatus{TypeURL: typeURL},
	}
	if holdsRemovals(typeURL) {
		sub.HoldRemovals()
	}
	st.subs[typeURL] = sub
	at, _ := slices.BinarySearchFunc(st.list, rank(typeURL)+1, func(s *subscription, r int) int { return rank(s.TypeURL()) - r })
	st.list = slices.Insert(st.list, at, sub)
	return sub
}

func (st *stream) step(g messenger, sub *subscription, r *discovery.DeltaDiscoveryRequest) error {
	waited := len(st.warming.names) > 0
	err := st.do(g, sub, func(t *delta.Table) delta.Output { return sub.Step(t, r) })
	if err == nil {
		err = st.renew(g)
	}
	switch {
	case err != nil || st.waits(listenerType):
	case waited:
		err = st.push(g)
	case releases(sub.TypeURL()):
		err = st.release(g)
	}
	return err
}

// push sends what each subscription lacks: first what is referred to, then what refers to it, then the removals.
func (st *stream) push(g messenger) error {
	since := st.takeSince()
	if !since.IsZero() {
		st.server.cfg.Metrics.queueTime.Observe(st.server.cfg.Now().Sub(since).Seconds())
	}
	if err := st.unpark(g); err != nil {
		return err
	}
	complete := false
	err := st.atOnce(g, func(g messenger) (err error) {
		complete, err = st.advance(g)
		return err
	})
	if err != nil || !complete {
		return err
	}
	if !since.IsZero() {
		st.server.cfg.Metrics.convergence.Observe(st.server.cfg.Now().Sub(since).Seconds())
	}
	return nil
}

// advance brings all subscriptions up to date, but for those that have to wait until clusters are warm.
func (st *stream) advance(g messenger) (complete bool, err error) {
	for _, sub := range st.list {
		if st.waits(sub.TypeURL()) {
			return false, nil // the rest comes when the clusters are warm
		}
		if err := st.do(g, sub, func(t *delta.Table) delta.Output { return sub.Advance(t) }); err != nil {
			return false, err
		}
		if rank(sub.TypeURL()) == endpointRank {
			if err := st.renew(g); err != nil {
				return false, err
			}
		}
	}
	return true, st.release(g)
}

// unpark takes up requests that had to wait for their scope's first resources.
func (st *stream) unpark(g messenger) error {
	parked := st.parked
	st.parked = nil
	for _, r := range parked {
		sub := st.subs[r.GetTypeUrl()]
		if !st.server.serves(sub.scope) {
			st.parked = append(st.parked, r)
			continue
		}
		if err := st.step(g, sub, r); err != nil {
			return err
		}
	}
	return nil
}

// do makes one step and what it asks for. Only the step itself holds the topic's lock: encoding and writing do not.
func (st *stream) do(g messenger, sub *subscription, step func(*delta.Table) delta.Output) error {
	start := st.server.cfg.Now()
	t := sub.topic
	t.mu.Lock()
	out := step(t.table)
	t.follow(st, sub.Subscription, sub.Wildcard())
	t.forget(st, out.Forget)
	t.demand(st, out.Demand)
	t.mu.Unlock()

	if out.Nack != nil {
		st.rejected(sub.TypeURL(), out.Nack)
	}
	if out.Nack != nil && rank(sub.TypeURL()) == clusterRank {
		st.warming.end()
	}
	// Before the write: a client that reads slowly is one that has been sent something.
	st.record(&sub.last, sub.Status(), out.Send != nil, out.Acked != "" || out.Nack != nil)
	if out.Send == nil {
		return nil
	}
	if rank(sub.TypeURL()) <= endpointRank {
		st.noteClusters(sub, out.Send.Entries)
	}
	err := g.SendMsg(newEncoded(out.Send.Wire(sub.TypeURL(), st.server.cfg.Version), delta.AppendNonce(nil, out.Send.Nonce)))
	st.server.cfg.Metrics.pushed(sub.TypeURL(), st.server.cfg.Now().Sub(start))
	return err
}

// noteClusters takes note of clusters or endpoints that are being sent.
func (st *stream) noteClusters(sub *subscription, entries []*delta.Entry) {
	at := slices.IndexFunc(st.list, func(s *subscription) bool { return rank(s.TypeURL()) == endpointRank && s.Started() })
	if at < 0 {
		st.noteSent(sub.TypeURL(), namesOf(entries), nil, nil)
	} else {
		st.noteSent(sub.TypeURL(), namesOf(entries), st.list[at].topic, st.list[at].Has)
	}
}

func (st *stream) rejected(typeURL string, nack *delta.Nack) {
	st.server.cfg.Metrics.rejected(typeURL, st.node.GetId())
	st.server.cfg.Log.Warn("xds client rejected resources; it keeps what it had",
		"node", st.node.GetId(), "type", typeURL, "nonce", nack.Nonce, "error", nack.Message)
}

// record publishes the state of a subscription for Clients.
func (st *stream) record(last *TypeStatus, s delta.Status, sent, answered bool) {
	if !sent && !answered {
		return
	}
	now := st.server.cfg.Now()
	if sent {
		last.SentTime = now
	}
	if answered {
		last.AnsweredTime = now
	}
	last.Sent, last.Acked, last.Nacks, last.LastError = s.Sent, s.Acked, s.Nacks, s.LastError
	st.publishStatus(*last)
}

func (st *stream) publishStatus(now TypeStatus) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if at := slices.IndexFunc(st.status, func(t TypeStatus) bool { return t.TypeURL == now.TypeURL }); at >= 0 {
		st.status[at] = now
		return
	}
	st.status = append(st.status, now)
}
