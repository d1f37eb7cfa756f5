package server

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// Resource is one named xDS resource; see delta.Resource.
type Resource = delta.Resource

// Peer is an authenticated caller.
type Peer struct {
	Namespace, ServiceAccount string
	ClusterID                 string
}

// Config of a Server. Only Log is required.
type Config struct {
	Log *slog.Logger
	// Authenticate identifies the caller of a stream by its context (metadata, TLS state). Its error is Unauthenticated unless
	// it is a gRPC status. If nil, callers are not authenticated: for a port that is not reachable from outside.
	Authenticate func(context.Context) (Peer, error)
	// Implied returns the groups whose members an on-demand client gets unasked, such as those of its own node. It may be nil.
	Implied func(node *corev3.Node, typeURL string) []string
	// Scopes decide which clients see which resources; nil means that everything is for everybody.
	Scopes Scopes
	// SotW answers state-of-the-world requests by type, such as "istio.io/debug/syncz". Types not in it are served from what
	// has been published.
	SotW map[string]SotWHandler
	// ControlPlane says in state-of-the-world responses who answers; nil says nothing.
	ControlPlane *corev3.ControlPlane
	// Version goes into system_version_info.
	Version string
	Metrics *Metrics
	// Now is time.Now but for tests.
	Now func() time.Time
}

// Server implements the aggregated discovery service. Register it with a grpc.Server made with Options.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	// immutable
	cfg          Config
	controlPlane []byte // encoded

	opening sync.Mutex // held while scopes are opened and closed; taken before mu

	mu      sync.Mutex
	types   map[string]*topic    // guarded by mu: of what is for everybody; never removed
	scopes  map[string]*scope    // guarded by mu: those that have clients
	streams map[*stream]struct{} // guarded by mu
	nextID  uint64               // guarded by mu
}

// topic is one type: its table, and who is to be woken for what.
type topic struct {
	typeURL string

	mu       sync.Mutex
	table    *delta.Table                    // guarded by mu
	wild     map[*stream]struct{}            // guarded by mu: woken by every change
	interest map[string]map[*stream]struct{} // guarded by mu: woken by changes that concern the key
	readers  map[*stream]reader              // guarded by mu: all of them, for trimming
	paced    paced                           // guarded by mu: streams that are yet to be woken
}

// reader is a position in a table, and what of it is asked for. It changes only with topic.mu held.
type reader interface {
	At() uint64
	Selected(t *delta.Table) []*delta.Entry
}

// New returns a server that has nothing published. A type exists from its first Publish or first subscriber.
func New(cfg Config) *Server {
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{
		cfg: cfg, controlPlane: controlPlaneField(cfg),
		types: map[string]*topic{}, scopes: map[string]*scope{}, streams: map[*stream]struct{}{},
	}
}

// Publish applies a change to the resources of a type and wakes the streams it concerns; while changes keep coming, many streams are
// woken for several of them together (paceLimit). It costs what changed, does no I/O, and never waits for a client. Calls for one type
// must not overlap if their order matters.
func (s *Server) Publish(typeURL string, changed []Resource, removed []string) {
	if len(changed)+len(removed) == 0 {
		return
	}
	now, t := s.cfg.Now(), s.topic(nil, typeURL)
	for st, since := range t.pace(t.publish(changed, removed), now) {
		st.wakeUp(since)
	}
}

// topic returns that of a type in a scope, nil being what is for everybody.
func (s *Server) topic(sc *scope, typeURL string) *topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	types := s.types
	if sc != nil {
		types = sc.types
	}
	t := types[typeURL]
	if t == nil {
		t = &topic{
			typeURL: typeURL, table: delta.NewTable(),
			wild: map[*stream]struct{}{}, interest: map[string]map[*stream]struct{}{}, readers: map[*stream]reader{},
		}
		types[typeURL] = t
	}
	return t
}

// publish returns the streams to be woken.
func (t *topic) publish(changed []Resource, removed []string) []*stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	concerned := t.table.Publish(changed, removed)
	if len(concerned) == 0 {
		return nil
	}
	if t.table.NeedsTrim() {
		return t.trim()
	}
	if len(t.interest) == 0 {
		return slices.Collect(maps.Keys(t.wild))
	}
	wake := maps.Clone(t.wild)
	for k := range concerned {
		for st := range t.interest[k] {
			wake[st] = struct{}{}
		}
	}
	return slices.Collect(maps.Keys(wake))
}

// trim shortens the log to what the slowest stream needs, and wakes them all so that the idle ones do not hold it back the
// next time.
func (t *topic) trim() []*stream {
	oldest := t.table.Seq()
	for _, r := range t.readers {
		oldest = min(oldest, r.At())
	}
	t.table.Trim(oldest)
	return slices.Collect(maps.Keys(t.readers))
}

// follow makes a stream known to the topic as its subscription now stands. Callers hold t.mu.
func (t *topic) follow(st *stream, r reader, k *kept, wildcard bool) {
	now := known
	if wildcard {
		now = wild
	}
	if k.followed == now {
		return
	}
	k.followed = now
	t.readers[st] = r
	st.topics[t] = struct{}{}
	if wildcard {
		t.wild[st] = struct{}{}
	} else {
		delete(t.wild, st)
	}
}

// demand and forget change by which keys a stream is woken. Callers hold t.mu.
func (t *topic) demand(st *stream, keys []string) {
	for _, k := range keys {
		if t.interest[k] == nil {
			t.interest[k] = map[*stream]struct{}{}
		}
		t.interest[k][st] = struct{}{}
		st.keys[demanded{t, k}] = struct{}{}
	}
}

func (t *topic) forget(st *stream, keys []string) {
	for _, k := range keys {
		delete(st.keys, demanded{t, k})
		if delete(t.interest[k], st); len(t.interest[k]) == 0 {
			delete(t.interest, k)
		}
	}
}

// leave removes all traces of a stream.
func (t *topic) leave(st *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.readers, st)
	delete(t.wild, st)
	delete(t.paced.streams, st)
	for k := range st.keys {
		if k.of == t {
			if delete(t.interest[k.key], st); len(t.interest[k.key]) == 0 {
				delete(t.interest, k.key)
			}
		}
	}
}

// shortType is the name of a type in metrics: that of the field for Envoy's types, the whole URL for the rest.
func shortType(typeURL string) string {
	const envoy = "type.googleapis.com/envoy."
	switch strings.TrimPrefix(typeURL, envoy) {
	case "config.cluster.v3.Cluster":
		return "cds"
	case "config.listener.v3.Listener":
		return "lds"
	case "config.route.v3.RouteConfiguration":
		return "rds"
	case "config.endpoint.v3.ClusterLoadAssignment":
		return "eds"
	case "extensions.transport_sockets.tls.v3.Secret":
		return "sds"
	case "config.core.v3.TypedExtensionConfig":
		return "ecds"
	}
	return typeURL
}
