package l7

import (
	"errors"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

var errSoon = errors.New("skeleton")

func compileListener(*listenerv3.Listener) (*Listener, error)                { return nil, errSoon }
func compileCluster(*clusterv3.Cluster) (*Cluster, error)                    { return nil, errSoon }
func compileEndpoints(*endpointv3.ClusterLoadAssignment) (*Endpoints, error) { return nil, errSoon }

// CompileRoutes makes the table of a route configuration. The error names the field that cannot be honoured.
func CompileRoutes(*routev3.RouteConfiguration) (*Routes, error) { return nil, errSoon }

type chainMatch struct{}

func (chainMatch) dependsOnProtocol(*Conn) bool { return false }
func (chainMatch) find(*Conn, Protocol) *Chain  { return nil }

// StringMatcher is a compiled string matcher.
type StringMatcher struct{}

// Match is whether s matches.
func (m *StringMatcher) Match(s string) bool { return false }

type (
	headerMatcher  struct{}
	scratch        struct{}
	requestState   struct{}
	responseState  struct{}
	managerOptions struct{}
	httpFilter     struct{}
	networkRBAC    struct{}
	weightedEntry  struct{}
)

func (scratch) reset() {}

// Routes is a compiled RouteConfiguration.
type Routes struct{ Name string }

// Route is a compiled route.
type Route struct {
	Name      string
	Operation string // decorator
	Metadata  *corev3.Metadata
}

func (d *Decision) retryFailure(Failure) bool        { return false }
func (d *Decision) retryResponse(*httpmsg.Head) bool { return false }

// BackOff is how long to wait before the n-th retry (from 1).
func (r *Retry) BackOff(n uint32, rnd Rand) time.Duration { return 0 }

// Decide decides about the request and changes its head as Envoy would before sending it upstream.
func (c *Config) Decide(d *Decision, ch *Chain, r *Request, now time.Time, rnd Rand) {}

// Status is as in retry policies of HTTP: what the request looked like to upstream.

// ApplyResponse changes the head of a response, of upstream's or a local reply, as Envoy would before sending it downstream.
func (d *Decision) ApplyResponse(r *Request, head *httpmsg.Head, info *ResponseInfo) {}

// LocalReply makes the head of an answer of ours and returns its body. It includes what ApplyResponse does.
func (d *Decision) LocalReply(r *Request, reply *Reply, info *ResponseInfo, head *httpmsg.Head) (body string) {
	return ""
}

// Replies to what only the one who forwards can find out. They may be compared by pointer.
var (
	ReplyNoHealthyUpstream = &Reply{Status: 503, Body: "no healthy upstream", GRPCStatus: -1, Details: "no_healthy_upstream", Flags: FlagNoHealthyUpstream}
	ReplyUpstreamTimeout   = &Reply{Status: 504, Body: "upstream request timeout", GRPCStatus: -1, Details: "upstream_response_timeout", Flags: FlagUpstreamRequestTimeout}
	ReplyPerTryTimeout     = &Reply{Status: 504, Body: "upstream request timeout", GRPCStatus: -1, Details: "upstream_per_try_timeout", Flags: FlagUpstreamRequestTimeout}
	ReplyPerTryIdleTimeout = &Reply{Status: 504, Body: "upstream request timeout", GRPCStatus: -1, Details: "upstream_per_try_idle_timeout", Flags: FlagUpstreamRequestTimeout}
	ReplyStreamIdleTimeout = &Reply{Status: 408, Body: "stream timeout", GRPCStatus: -1, Details: "stream_idle_timeout", Flags: FlagStreamIdleTimeout}
	ReplyRequestTimeout    = &Reply{Status: 408, Body: "request timeout", GRPCStatus: -1, Details: "request_overall_timeout"}
	ReplyHeaderTimeout     = &Reply{Status: 408, Body: "request header timeout", GRPCStatus: -1, Details: "request_header_timeout"}
	ReplyMaxDuration       = &Reply{Status: 408, Body: "downstream duration timeout", GRPCStatus: -1, Details: "max_duration_timeout", Flags: FlagDurationTimeout}
	ReplyOverflow          = &Reply{Status: 503, GRPCStatus: -1, Header: []httpmsg.Field{{Key: "x-envoy-overloaded", Value: "true"}}, Flags: FlagUpstreamOverflow}
)

// ReplyReset is the answer when upstream failed and nothing is retried any more: 503 "upstream connect error or disconnect/reset
// before headers. …". transport is the transport failure reason ("" is none); retried is whether an attempt was repeated.
func ReplyReset(f Failure, transport string, retried bool) *Reply { return nil }

// TCPDecision is what happens with a connection of a TCP chain.
type TCPDecision struct {
	// Denied is whether policy closes the connection; Details then is "rbac_access_denied_matched_policy[…]".
	Denied  bool
	Details string
	Flags   Flags
	// ClusterName, Cluster and Endpoints are where the bytes go; Cluster is nil when there is none (flag NC).
	ClusterName string
	Cluster     *Cluster
	Endpoints   *Endpoints
	Hash        uint64
	HashOK      bool
}

// DecideTCP decides about a connection of a TCP chain.
func (c *Config) DecideTCP(ch *Chain, conn *Conn, rnd Rand) TCPDecision { return TCPDecision{} }

// Admit is whether the network filters of the chain let the connection in; also of HTTP chains. Details name the policy otherwise.
func (ch *Chain) Admit(conn *Conn) (details string, ok bool) { return "", true }
