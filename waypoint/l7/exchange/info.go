package exchange

import (
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// Info is a request as filters, matchers and formatters see it.
type Info struct {
	// Head is changed on the way.
	Head *httpmsg.Head
	Conn *Conn

	// For logs and metrics. They alias memory of Head or of the request.
	ID           string // x-request-id
	OriginalPath string // as the client sent it
	Path         string // after normalisation, before a rewrite
	Authority    string // before a rewrite
	GRPC         bool   // content-type is gRPC's
	// Remote is the client: of x-forwarded-for where that is trusted, else of the connection.
	Remote netip.AddrPort
	// Internal is whether x-envoy-internal holds.
	Internal bool
	Now      time.Time
	// Route, VirtualHost and Cluster are names, as soon as they are known.
	Route, VirtualHost, Cluster string
	// ClearRoute is set by a filter after which the route must be found again.
	ClearRoute bool
	// Random is drawn once per request, as Envoy's stream has one for all fractions of its route match.
	Random uint64

	// Response is the head of the response while its headers are changed, else nil; Upstream the host that it came from.
	Response *httpmsg.Head
	Upstream string

	// Shadows are what policies of a dry run said.
	Shadows []Shadow

	Scratch  Scratch
	state    []stateValue
	metadata []metadata
}

// Shadow is the result of policies of a dry run: the first of them that matches, "" if none does, and whether they would allow it.
type Shadow struct {
	Policy  string
	Allowed bool
}

type stateValue struct{ key, value string }

type metadata struct {
	filter string
	value  map[string]any
}

// Begin makes it ready for another request.
func (i *Info) Begin(head *httpmsg.Head, conn *Conn) {
	i.Scratch.Reset()
	clear(i.state)
	clear(i.metadata)
	*i = Info{Head: head, Conn: conn, Scratch: i.Scratch, Shadows: i.Shadows[:0], state: i.state[:0], metadata: i.metadata[:0]}
}

// Keys of filter state that the hop before this one shares with it: connect_terminate with main_internal.
const (
	PeerPrincipal  = "io.istio.peer_principal"
	LocalPrincipal = "io.istio.local_principal"
	OriginalLocal  = "envoy.filters.listener.original_dst.local_ip"
	OriginalRemote = "envoy.filters.listener.original_dst.remote_ip"
)

// SetState sets an object of the filter state; the first one of a key stays when it is read-only, which the caller knows.
func (i *Info) SetState(key, value string) {
	for n := range i.state {
		if i.state[n].key == key {
			i.state[n].value = value
			return
		}
	}
	i.state = append(i.state, stateValue{key, value})
}

// State returns an object of the filter state as a string.
func (i *Info) State(key string) (string, bool) {
	for n := range i.state {
		if i.state[n].key == key {
			return i.state[n].value, true
		}
	}
	return i.Conn.State(key)
}

// SetMetadata merges into the dynamic metadata of a filter.
func (i *Info) SetMetadata(filter, key string, value any) {
	for n := range i.metadata {
		if i.metadata[n].filter == filter {
			i.metadata[n].value[key] = value
			return
		}
	}
	i.metadata = append(i.metadata, metadata{filter, map[string]any{key: value}})
}

// Metadata returns the dynamic metadata of a filter: values as of encoding/json.
func (i *Info) Metadata(filter string) map[string]any {
	for n := range i.metadata {
		if i.metadata[n].filter == filter {
			return i.metadata[n].value
		}
	}
	return nil
}
