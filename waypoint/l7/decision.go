package l7

import (
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/ratelimit"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

// Decision is what happens with a request.
type Decision struct {
	// Delay is waited before anything else (fault injection); a client that goes away meanwhile ends it. Flag "DI".
	Delay time.Duration
	// Ask is set while an authorizer outside has to be asked before anything else is decided: see Config.Resume.
	Ask *extauthz.Filter
	// Reply is set when the answer is ours.
	Reply *Reply
	// Route is nil when none matched.
	Route *Route
	// RouteName, VirtualHost and StatPrefix are for logs and metrics.
	RouteName, VirtualHost string

	// ClusterName, Cluster and Endpoints are where the request goes; Reply is set (503, flag NC) when there is no such cluster, and
	// the name is "" then, as in an access log.
	ClusterName string
	Cluster     *Cluster
	Endpoints   *Endpoints
	// Timeout is from the end of the request to the end of the response; 0 is none. PerTry is of each attempt.
	Timeout, PerTry, PerTryIdle time.Duration
	// IdleTimeout of the stream; 0 is none. MaxDuration of the stream; 0 is none.
	IdleTimeout, MaxDuration time.Duration
	// Retry is nil when there is none.
	Retry *Retry
	// NumRetries is of the route or of x-envoy-max-retries.
	NumRetries uint32
	// RetryOn is of the route and of x-envoy-retry-on.
	RetryOn RetryOn
	// Hash is valid when HashOK.
	Hash   uint64
	HashOK bool
	// Session is the host that the request's session has; the zero value leaves the choice free.
	Session SessionHost
	// Mirrors that were drawn for this request.
	Mirrors []Mirror
	// Upgrade is whether the request's upgrade, or CONNECT, is to be forwarded as such. ConnectTCP: a CONNECT whose bytes go to the host.
	Upgrade    bool
	ConnectTCP bool
	// AttemptCount says that x-envoy-attempt-count is to be counted up in the request at each retry; AttemptCountResponse that the
	// response shows it.
	AttemptCount, AttemptCountResponse bool
	// AutoHost says that the authority becomes the chosen host's Hostname, if it has one: see RewriteHost.
	AutoHost bool
	// AppendHost says that the authority that AutoHost replaces is appended to x-forwarded-host.
	AppendHost bool
	// Flags and Details are what has been determined so far, also without a reply (a delay that was injected).
	Flags Flags
	// Details is empty unless Reply is set.
	Details string
	// Span is nil when the request is not part of a trace.
	Span *tracing.Span

	weighted *weightedEntry
	manager  *HTTPManager
	trace    *[]Step // what filters say is noted here, for Explain
	resp     responseState
	asked    asked

	tellsTimeout, tellsGRPC bool // what TellTimeout writes
}

// Mirror is a copy of the request to be sent, whose answer nobody waits for.
type Mirror struct {
	ClusterName string
	Cluster     *Cluster // may be nil: then nothing is sent
	Endpoints   *Endpoints
	// Authority of the copy: with "-shadow" before the port, unless switched off.
	Authority string
}

// Reply is an answer of ours. Replies of the package are shared: they must not be changed.
type Reply struct {
	Status int
	Body   string
	// Header is added to the head.
	Header []httpmsg.Field
	// GRPCStatus is of the answer to a gRPC request; -1 maps Status.
	GRPCStatus int
	// Own replaces the fields of the same names in the head, each of which may come more than once.
	Own []httpmsg.Field
	// Details and Flags are as in Envoy's access log.
	Details string
	Flags   Flags
	// bare is that the answer has not the form of local replies: not gRPC's, and without the route's header operations. direct is the
	// answer of a route itself: its header operations apply, which other answers get from routes that forward only.
	bare, direct bool
}

// responseState is what the response needs of the request.
type responseState struct {
	cors        *corsPolicy
	origin      string
	cookie      *hashPolicy
	cookieValue string
	location    string
	head        bool               // the method is HEAD
	verdicts    []extauthz.Verdict // those that change the response
	limited     *limiter           // that refused the request
	retryAfter  int64              // in seconds, of limited
	shown       []*ratelimit.Shown // limits that the response tells of
	session     *session           // that the response tells the host of
}

// ResponseInfo is what is known when a response from upstream comes.
type ResponseInfo struct {
	// Upstream is whether the response came from upstream: x-envoy-upstream-service-time is added.
	Upstream    bool
	ServiceTime time.Duration
	Attempts    uint32
	Host        *Endpoint
	// HostAddress names the host that was chosen as access logs do: "10.0.0.1:8080", "envoy://connect_originate/10.0.0.1:8080"; empty
	// when there was none.
	HostAddress string
	Now         time.Time
}
