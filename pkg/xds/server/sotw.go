package server

import (
	"context"
	"slices"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// SotWHandler answers each state-of-the-world request of one type with its resources. It is not asked about ACKs.
type SotWHandler func(ctx context.Context, r *discovery.DiscoveryRequest, peer Peer) ([]*anypb.Any, error)

// sotw is the state of one type on a state-of-the-world stream.
type sotw struct {
	typeURL string
	topic   *topic
	names   []string // empty: all
	at      uint64
	nonces  int
	last    TypeStatus
}

// At is the sequence number of the table the client was last sent.
func (w *sotw) At() uint64 { return w.at }

// StreamAggregatedResources serves state-of-the-world xDS to one client: types with a handler by that handler, others from
// what is published, whole at each change.
func (s *Server) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	st, err := s.open(g.Context())
	if err != nil {
		return err
	}
	defer st.close()
	types := map[string]*sotw{}
	requests, ended := receive(g.Context(), g.Recv)
	for {
		select {
		case r := <-requests:
			err = st.sotwRequest(g, types, r)
		case <-st.wake:
			st.takeSince()
			for _, w := range types {
				if err == nil && w.topic != nil {
					err = st.sotwPush(g, w, false)
				}
			}
		case err := <-ended:
			return endOf(err)
		}
		if err != nil {
			return err
		}
	}
}

func (st *stream) sotwRequest(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer, types map[string]*sotw, r *discovery.DiscoveryRequest) error {
	url := r.GetTypeUrl()
	handler := st.server.cfg.SotW[url]
	check := admit
	if handler != nil {
		check = admitTool
	}
	if err := st.identify(r.GetNode(), check); err != nil {
		return err
	}
	w := types[url]
	if w == nil {
		w = &sotw{typeURL: url, last: TypeStatus{TypeURL: url}}
		if handler == nil {
			w.topic = st.server.topic(url)
		}
		types[url] = w
	}
	if !st.sotwAnswer(w, r) {
		return nil
	}
	if handler == nil {
		w.names = without(r.GetResourceNames(), delta.Wildcard)
		return st.sotwPush(g, w, true)
	}
	resources, err := handler(g.Context(), r, st.peer)
	if err != nil {
		return err
	}
	return st.sotwSend(g, w, "", resources)
}

// sotwAnswer takes the nonce of a request, and reports whether it asks for something.
func (st *stream) sotwAnswer(w *sotw, r *discovery.DiscoveryRequest) bool {
	nonce := r.GetResponseNonce()
	if nonce == "" {
		return true
	}
	if nonce != strconv.Itoa(w.nonces) {
		return false // stale
	}
	w.last.AnsweredTime = st.server.cfg.Now()
	if d := r.GetErrorDetail(); d != nil {
		w.last.Nacks++
		w.last.LastError = d.GetMessage()
		st.server.cfg.Metrics.rejected(w.typeURL, st.node.GetId())
		st.publishStatus(w.last)
		return false
	}
	w.last.Acked, w.last.LastError = nonce, ""
	st.publishStatus(w.last)
	return w.topic != nil && !slices.Equal(w.names, without(r.GetResourceNames(), delta.Wildcard))
}

// sotwPush sends the whole state if there is something new in the table, or if forced.
func (st *stream) sotwPush(g messenger, w *sotw, force bool) error {
	t := w.topic
	t.mu.Lock()
	if !force && w.at >= t.table.Seq() {
		t.mu.Unlock()
		return nil
	}
	w.at = t.table.Seq()
	var entries []*delta.Entry
	if len(w.names) == 0 {
		entries = t.table.Since(0).Entries
	}
	for _, name := range w.names {
		if e, ok := t.table.Get(name); ok {
			entries = append(entries, e)
		}
	}
	t.follow(st, w, true)
	t.mu.Unlock()
	resources := make([]*anypb.Any, len(entries))
	for i, e := range entries {
		resources[i] = e.Any
	}
	return st.sotwSend(g, w, strconv.FormatUint(w.at, 10), resources)
}

func (st *stream) sotwSend(g messenger, w *sotw, version string, resources []*anypb.Any) error {
	w.nonces++
	if version == "" {
		version = strconv.Itoa(w.nonces)
	}
	nonce := strconv.Itoa(w.nonces)
	err := g.SendMsg(&discovery.DiscoveryResponse{TypeUrl: w.typeURL, VersionInfo: version, Nonce: nonce, Resources: resources, ControlPlane: st.server.cfg.ControlPlane})
	st.server.cfg.Metrics.pushes.WithLabelValues(shortType(w.typeURL)).Inc()
	w.last.Sent, w.last.SentTime = nonce, st.server.cfg.Now()
	st.publishStatus(w.last)
	return err
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}
