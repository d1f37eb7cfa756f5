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
	kept
}

// Holds is always so: whether there is something to say, Release knows.
func (*state) Holds() bool { return true }

// answers is a type that a handler answers.
type answers struct {
	nonces int
	last   TypeStatus
}

// sotwStream is a stream that speaks state-of-the-world.
type sotwStream struct {
	order[*state, *discovery.DiscoveryRequest, delta.StateOutput]
	answers map[string]*answers
}

// StreamAggregatedResources serves state-of-the-world xDS to one client: types with a handler by that handler, others from
// what is published: listeners and clusters whole at each change, of routes and endpoints those that changed.
func (s *Server) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	base, err := s.open(g.Context())
	if err != nil {
		return err
	}
	defer base.close()
	st := &sotwStream{answers: map[string]*answers{}}
	st.stream, st.enroll, st.do = base, newState, st.send
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
	return st.take(g, r)
}

func newState(typeURL string, k kept) *state {
	return &state{State: delta.NewState(typeURL, !partial(typeURL), holdsRemovals(typeURL)), kept: k}
}

// send makes one step and what it asks for. Only the step itself holds the topic's lock.
func (st *sotwStream) send(g messenger, w *state, step func(*delta.Table) delta.StateOutput) error {
	start := st.server.cfg.Now()
	w.topic.mu.Lock()
	out := step(w.topic.table)
	w.topic.follow(st.stream, w.State, &w.kept, true)
	w.topic.mu.Unlock()
	st.heard(w, out.Nack, out.Send != nil, out.Acked != "")
	if out.Send == nil {
		return nil
	}
	st.sending(w, out.Send.Changed)
	tail := delta.AppendState(st.server.controlPlane, out.Send.Version, out.Send.Nonce)
	err := g.SendMsg(newEncoded(out.Send.StateWire(w.TypeURL()), tail))
	w.pushes.pushed(st.server.cfg.Now().Sub(start))
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
