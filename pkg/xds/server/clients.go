package server

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// ClientStatus is one connected client.
type ClientStatus struct {
	ConnectionID uint64
	Node         *corev3.Node
	Peer         Peer
	Connected    time.Time
	Types        []TypeStatus // in the order of the client's first requests
}

// TypeStatus is how far a client has come with one type.
type TypeStatus struct {
	TypeURL      string
	Sent, Acked  string // nonces; equal when the client has everything, "" before the first
	Nacks        int
	LastError    string // of the last NACK, until an ACK
	SentTime     time.Time
	AnsweredTime time.Time
}

// Clients returns the clients that have told who they are, in the order of connecting.
func (s *Server) Clients() []ClientStatus {
	s.mu.Lock()
	streams := slices.SortedFunc(maps.Keys(s.streams), func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
	s.mu.Unlock()
	out := make([]ClientStatus, 0, len(streams))
	for _, st := range streams {
		st.mu.Lock()
		if st.node != nil {
			out = append(out, ClientStatus{ConnectionID: st.id, Node: st.node, Peer: st.peer, Connected: st.connected, Types: slices.Clone(st.status)})
		}
		st.mu.Unlock()
	}
	return out
}
