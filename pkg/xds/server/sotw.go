package server

import (
	"context"
	"slices"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// SotWHandler answers each state-of-the-world request of one type with its resources. It is not asked about ACKs.
type SotWHandler func(ctx context.Context, r *discovery.DiscoveryRequest, peer Peer) ([]*anypb.Any, error)

// state is one type on a state-of-the-world stream.
type state struct {
	*delta.State
	topic *topic
	scope *scope // nil: what is for everybody
	last  TypeStatus
}

// answers is a type that a handler answers.
type answers struct {
	nonces int
	last   TypeStatus
}

// sotwStream is a stream that speaks state-of-the-world.
type sotwStream struct {
	*stream
	states  map[string]*state
	list    []*state // in the order in which types are sent
	answers map[string]*answers
	parked  []*discovery.DiscoveryRequest // of scopes that have nothing yet
}

// StreamAggregatedResources serves state-of-the-world xDS to one client: types with a handler by that handler, others from
// what is published: listeners and clusters whole at each change, of routes and endpoints those that changed.
func (s *Server) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	base, err := s.open(g.Context())
	if err != nil {
		return err
	}
	defer base.close()
	st := &sotwStream{stream: base, states: map[string]*state{}, answers: map[string]*answers{}}
	request := func(r *discovery.DiscoveryRequest) error { return st.request(g, r) }
	return serve(base, g.Recv, request, func() error { return st.push(g) })
}

func (st *sotwStream) request(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer, r *discovery.DiscoveryRequest) error {
	handler := st.server.cfg.SotW[r.GetTypeUrl()]
	check := admit
	if handler != nil {
		check = admitTool
	}
	if err := st.identify(r.GetNode(), check); err != nil {
		return err
	}
	if handler != nil {
		return st.answer(g, handler, r)
	}
	w := st.states[r.GetTypeUrl()]
	if w == nil {
		w = st.newState(r.GetTypeUrl())
	}
	if !st.server.serves(w.scope) {
		st.parked = append(st.parked, r)
		return nil
	}
	return st.step(g, w, r)
}

func (st *sotwStream) newState(typeURL string) *state {
	sc := st.enter(typeURL)
	w := &state{
		State: delta.NewState(typeURL, !partial(typeURL), holdsRemovals(typeURL)),
		topic: st.server.topic(sc, typeURL), scope: sc, last: TypeStatus{TypeURL: typeURL},
	}
	st.states[typeURL] = w
	at, _ := slices.BinarySearchFunc(st.list, rank(typeURL)+1, func(w *state, r int) int { return rank(w.TypeURL()) - r })
	st.list = slices.Insert(st.list, at, w)
	return w
}

func (st *sotwStream) step(g messenger, w *state, r *discovery.DiscoveryRequest) error {
	waited := len(st.warming.names) > 0
	err := st.do(g, w, func(t *delta.Table) delta.StateOutput { return w.Step(t, r) })
	if err == nil {
		err = st.renew(g)
	}
	switch {
	case err != nil || st.waits(listenerType):
	case waited:
		err = st.push(g)
	case releases(w.TypeURL()):
		err = st.release(g)
	}
	return err
}

func (st *sotwStream) push(g messenger) error {
	since := st.takeSince()
	if !since.IsZero() {
		st.server.cfg.Metrics.queueTime.Observe(st.server.cfg.Now().Sub(since).Seconds())
	}
	parked := st.parked
	st.parked = nil
	for _, r := range parked {
		w := st.states[r.GetTypeUrl()]
		if !st.server.serves(w.scope) {
			st.parked = append(st.parked, r)
			continue
		}
		if err := st.step(g, w, r); err != nil {
			return err
		}
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

// advance brings all types up to date, but for those that have to wait until clusters are warm.
func (st *sotwStream) advance(g messenger) (complete bool, err error) {
	for _, w := range st.list {
		if st.waits(w.TypeURL()) {
			return false, nil // the rest comes when the clusters are warm
		}
		if err := st.do(g, w, w.Advance); err != nil {
			return false, err
		}
		if rank(w.TypeURL()) == endpointRank {
			if err := st.renew(g); err != nil {
				return false, err
			}
		}
	}
	return true, st.release(g)
}

// renew sends endpoints again whose clusters have been sent.
func (st *sotwStream) renew(g messenger) error {
	for _, w := range st.list {
		if rank(w.TypeURL()) != endpointRank || !w.Started() || len(st.renewed.names) == 0 {
			continue
		}
		names := st.renewed.take()
		if err := st.do(g, w, func(t *delta.Table) delta.StateOutput { return w.Refresh(t, names) }); err != nil {
			return err
		}
	}
	return nil
}

func (st *sotwStream) release(g messenger) error {
	for _, w := range st.list {
		if err := st.do(g, w, w.Release); err != nil {
			return err
		}
	}
	return nil
}

// do makes one step and what it asks for. Only the step itself holds the topic's lock.
func (st *sotwStream) do(g messenger, w *state, step func(*delta.Table) delta.StateOutput) error {
	start := st.server.cfg.Now()
	w.topic.mu.Lock()
	out := step(w.topic.table)
	w.topic.follow(st.stream, w.State, true)
	w.topic.mu.Unlock()
	if out.Nack != nil {
		st.rejected(w.TypeURL(), out.Nack)
	}
	if out.Nack != nil && rank(w.TypeURL()) == clusterRank {
		st.warming.end()
	}
	st.record(&w.last, w.Status(), out.Send != nil, out.Acked != "" || out.Nack != nil)
	if out.Send == nil {
		return nil
	}
	at := slices.IndexFunc(st.list, func(w *state) bool { return rank(w.TypeURL()) == endpointRank && w.Started() })
	if at < 0 {
		st.noteSent(w.TypeURL(), out.Send.Changed, nil, nil)
	} else {
		st.noteSent(w.TypeURL(), out.Send.Changed, st.list[at].topic, st.list[at].Has)
	}
	tail := delta.AppendState(st.server.controlPlane, out.Send.Version, out.Send.Nonce)
	err := g.SendMsg(newEncoded(out.Send.StateWire(w.TypeURL()), tail))
	st.server.cfg.Metrics.pushed(w.TypeURL(), st.server.cfg.Now().Sub(start))
	return err
}

// answer lets a handler answer.
func (st *sotwStream) answer(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer, handler SotWHandler, r *discovery.DiscoveryRequest) error {
	a := st.answers[r.GetTypeUrl()]
	if a == nil {
		a = &answers{last: TypeStatus{TypeURL: r.GetTypeUrl()}}
		st.answers[r.GetTypeUrl()] = a
	}
	if r.GetResponseNonce() != "" {
		if r.GetResponseNonce() == a.last.Sent {
			a.last.Acked, a.last.AnsweredTime = a.last.Sent, st.server.cfg.Now()
			st.publishStatus(a.last)
		}
		return nil
	}
	resources, err := handler(g.Context(), r, st.peer)
	if err != nil {
		return err
	}
	a.nonces++
	a.last.Sent, a.last.SentTime = strconv.Itoa(a.nonces), st.server.cfg.Now()
	st.publishStatus(a.last)
	return g.SendMsg(&discovery.DiscoveryResponse{
		TypeUrl: r.GetTypeUrl(), VersionInfo: a.last.Sent, Nonce: a.last.Sent, Resources: resources, ControlPlane: st.server.cfg.ControlPlane,
	})
}

// controlPlaneField is the encoded field of a DiscoveryResponse that says who answers, with no capacity to spare: what is appended
// to it is the caller's own.
func controlPlaneField(cfg Config) []byte {
	if cfg.ControlPlane == nil {
		return nil
	}
	content, err := proto.Marshal(cfg.ControlPlane)
	if err != nil {
		return nil // it is not essential
	}
	const field = 6
	return slices.Clip(protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), content))
}
