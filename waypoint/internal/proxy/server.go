package proxy

import (
	"context"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Server is the proxy. It does nothing until it has a configuration.
type Server struct{ deps Deps }

// New makes a Server; Close or Drain end it.
func New(deps Deps) *Server { return &Server{deps: deps.withDefaults()} }

// SetConfig changes the configuration: listeners are opened and closed, hosts come and go; what is open goes on. It returns
// when the listeners accept. The error joins what of the listeners could not be opened; the rest is in force.
func (s *Server) SetConfig(ctx context.Context, cfg *l7.Config) error { return nil }

// Drain ends gracefully: it goes on accepting while it tells clients to go elsewhere, and returns when nothing is open any more
// or ctx ends, which aborts the rest.
func (s *Server) Drain(ctx context.Context) error { return nil }

// Close ends everything at once.
func (s *Server) Close() error { return nil }

// DrainListeners begins a drain without ending: clients are told to go elsewhere (/drain_listeners).
func (s *Server) DrainListeners() {}

// Listeners tells the sockets that are open, sorted by name (/listeners).
func (s *Server) Listeners() []ListenerState { return nil }

// Clusters tells the state of all clusters and hosts, sorted by name (/clusters).
func (s *Server) Clusters() []upstream.ClusterState { return nil }

// Stats are the counters of the server (/stats).
func (s *Server) Stats() Stats { return Stats{} }

// ListenerState is an open socket.
type ListenerState struct {
	Name, Address string
	Connections   int
}

// Stats are counters and gauges of the whole server.
type Stats struct {
	Listeners []ListenerStats
	// Draining is whether a drain began.
	Draining bool
	// Connections and Tunnels are what is open downstream: sockets, and CONNECTs in them.
	Connections, Tunnels int64
	// MirrorsDropped counts mirrored requests that were not sent because too many were open.
	MirrorsDropped uint64
}

// ListenerStats are Envoy's listener.<address>.* and http.<stat_prefix>.* of one listener.
type ListenerStats struct {
	Name, Address, StatPrefix                  string
	ConnectionsTotal, ConnectionsActive        uint64
	RequestsTotal, RequestsActive              uint64
	Status1xx, Status2xx, Status3xx, Status4xx uint64
	Status5xx                                  uint64
	NoChain, HandshakeErrors                   uint64
}
