package server

import (
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// subscription is one type on an incremental stream.
type subscription struct {
	*delta.Subscription
	kept
}

// deltaStream is a stream that speaks incremental xDS.
type deltaStream struct {
	order[*subscription, *discovery.DeltaDiscoveryRequest, delta.Output]
}

// DeltaAggregatedResources serves incremental xDS to one client.
func (s *Server) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	base, err := s.open(g.Context())
	if err != nil {
		return err
	}
	defer base.close()
	st := &deltaStream{}
	st.stream, st.enroll, st.do = base, st.subscribe, st.send
	request := func(r *discovery.DeltaDiscoveryRequest) error {
		if err := st.identify(r.GetNode(), admit); err != nil {
			return err
		}
		return st.take(g, r)
	}
	return serve(base, g.Recv, request, func() error { return st.push(g) })
}

func (st *deltaStream) subscribe(typeURL string, k kept) *subscription {
	var implied []string
	if st.server.cfg.Implied != nil {
		implied = st.server.cfg.Implied(st.node, typeURL)
	}
	sub := &subscription{Subscription: delta.NewSubscription(typeURL, implied...), kept: k}
	if holdsRemovals(typeURL) {
		sub.HoldRemovals()
	}
	return sub
}

// send makes one step and what it asks for. Only the step itself holds the topic's lock: encoding and writing do not.
func (st *deltaStream) send(g messenger, sub *subscription, step func(*delta.Table) delta.Output) error {
	start := st.server.cfg.Now()
	t := sub.topic
	t.mu.Lock()
	out := step(t.table)
	t.follow(st.stream, sub.Subscription, &sub.kept, sub.Wildcard())
	t.forget(st.stream, out.Forget)
	t.demand(st.stream, out.Demand)
	t.mu.Unlock()

	st.heard(sub, out.Nack, out.Send != nil, out.Acked != "")
	if out.Send == nil {
		return nil
	}
	if rank(sub.TypeURL()) <= endpointRank {
		st.sending(sub, namesOf(out.Send.Entries))
	}
	err := g.SendMsg(newEncoded(out.Send.Wire(sub.TypeURL(), st.server.cfg.Version), delta.AppendNonce(nil, out.Send.Nonce)))
	sub.pushes.pushed(st.server.cfg.Now().Sub(start))
	return err
}
