package route

import "time"

// Config is a RouteConfiguration.
type Config struct {
	Name  string
	Hosts []VirtualHost
	// IgnorePort makes a virtual host match whatever port the Host header names.
	IgnorePort bool
}

// VirtualHost is the routes of one host; the first that matches is taken.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []Route
	// RequireTLS answers plain requests by a redirect to https.
	RequireTLS bool
}

// Origin names the object that a route comes from. The zero value is a route that no object asked for.
type Origin struct {
	Group, Version, Kind, Namespace, Name string
}

// Route is a match and what to do with it. Exactly one of Forward, Redirect and Direct is set.
type Route struct {
	Name       string
	Match      Match
	Forward    *Forward
	Redirect   *Redirect
	Direct     *Direct
	Request    HeaderOps
	Response   HeaderOps
	Fault      *Fault
	CORS       *CORS
	Origin     Origin
	Decorator  string
	StatPrefix string
}

// Match is a conjunction. The zero value matches everything.
type Match struct {
	Path    Path
	Headers []HeaderMatch
	Query   []QueryMatch
	Claims  []ClaimMatch
	// SourceNamespace matches the namespace in the verified identity of the client, where the proxy keeps one per request.
	SourceNamespace string
	// Chance is the share of the requests that match, by chance; 0 is all. One draw counts for all routes, so that a route with a
	// chance of 30 % followed by the same with 50 % gets the next 20 %.
	Chance Share
}

// PathKind says how a path is matched.
type PathKind int

// Kinds of path matches.
const (
	// PathAny matches every path.
	PathAny PathKind = iota
	PathExact
	// PathPrefix matches by characters: /foo matches /foobar.
	PathPrefix
	// PathSegments matches by whole segments: /foo matches /foo and /foo/bar.
	PathSegments
	PathRegex
)

// Path is a match of the path without its query.
type Path struct {
	Kind       PathKind
	Value      string
	IgnoreCase bool
}

// StringKind says how a string is matched.
type StringKind int

// Kinds of string matches.
const (
	// Present matches any value.
	Present StringKind = iota
	Exact
	Prefix
	Suffix
	Contains
	// Regex is RE2 and matches the whole string.
	Regex
)

// StringMatch is a match of one string.
type StringMatch struct {
	Kind       StringKind
	Value      string
	IgnoreCase bool
}

// HeaderMatch is a match of a request header; :method, :authority and :scheme are headers here.
type HeaderMatch struct {
	Name string
	StringMatch
	// Not matches a request without such a header, or with another value.
	Not bool
}

// QueryMatch is a match of a query parameter.
type QueryMatch struct {
	Name string
	StringMatch
}

// Forward sends a request to one of its targets.
type Forward struct {
	Targets []Target
	// Timeout of the whole request; 0 is none.
	Timeout time.Duration
	// Retry is nil for no retries.
	Retry   *Retry
	Mirrors []Mirror
	Rewrite Rewrite
	Hash    []Hash
	// Session is of all targets; nil leaves it to each of them.
	Session *Session
	// MissingIs500 answers 500, not 503, when a target's cluster does not exist.
	MissingIs500 bool
}

// Target is a cluster and its share.
type Target struct {
	Cluster string
	Weight  uint32
	// Host rewrites the authority; empty leaves it.
	Host     string
	Request  HeaderOps
	Response HeaderOps
	// Session is of those requests that go to this target; nil for none.
	Session *Session
}

// Rewrite changes the request's path and authority on its way. At most one of the three for paths is set.
type Rewrite struct {
	Authority string
	// Prefix replaces what the path match matched: all of it for an exact match or a regex.
	Prefix string
	Regex  *RegexRewrite
}

// RegexRewrite replaces what a RE2 pattern matches in the path.
type RegexRewrite struct {
	Pattern, Substitution string
}

// Retry is a retry policy.
type Retry struct {
	Attempts      uint32
	On            []string
	Codes         []uint32
	PerTryTimeout time.Duration
	// Backoff is the base interval; 0 is Envoy's default of 25 ms. BackoffMax is 0 for ten times the base.
	Backoff, BackoffMax time.Duration
	// OtherHosts avoids the hosts that were tried; OtherLocalities the priorities.
	OtherHosts, OtherLocalities bool
}

// Mirror is a copy of the request whose answer nobody waits for.
type Mirror struct {
	Cluster string
	Share   Share
}

// Share is a fraction in millionths.
type Share uint32

// Everything is all of it.
const Everything Share = 1_000_000

// Hash says which part of a request picks the upstream host. Exactly one of Header, Cookie, Query and SourceIP is set.
type Hash struct {
	Header   string
	Query    string
	SourceIP bool
	Cookie   *HashCookie
}

// HashCookie is a cookie that picks the host, and is set when it is missing and TTL is not nil.
type HashCookie struct {
	Name, Path string
	TTL        *time.Duration
	Attributes []Header
}

// Session keeps the requests of a client at the host that answered the first one, by a cookie or a header that names the host. Exactly
// one of Header and Cookie is set.
type Session struct {
	Header string
	Cookie SessionCookie
}

// SessionCookie is a cookie that names a host. It is for requests to the path and what is below it.
type SessionCookie struct {
	Name, Path string
	// TTL in whole seconds; 0 lasts as long as the client likes.
	TTL time.Duration
}

// Redirect answers with a Location. At most one of Path, Prefix and Regex is set.
type Redirect struct {
	Scheme, Host string
	// Port 0 leaves the port out.
	Port   uint32
	Path   string
	Prefix string
	Regex  *RegexRewrite
	// Code is one of 301, 302, 303, 307, 308.
	Code uint32
}

// Direct answers at once.
type Direct struct {
	Status uint32
	Body   []byte
}

// Fault delays or refuses a share of the requests.
type Fault struct {
	Delay      time.Duration
	DelayShare Share
	// Status, or GRPC, is the answer of an abort.
	Status uint32
	GRPC   *uint32
	// AbortShare is the share of aborts.
	AbortShare Share
}

// CORS is a cross-origin policy.
type CORS struct {
	Origins                                   []StringMatch
	AllowMethods, AllowHeaders, ExposeHeaders []string
	MaxAge                                    *time.Duration
	AllowCredentials                          *bool
	// ForwardUnmatched sends a preflight of an unknown origin upstream instead of answering it.
	ForwardUnmatched bool
}

// Header is a name and a value.
type Header struct{ Name, Value string }

// HeaderOps are changes of headers, in this order: remove, then set, then add.
type HeaderOps struct {
	Set, Add []Header
	Remove   []string
}

// Problem is a piece of an object that could not be used, by its field.
type Problem struct {
	Origin  Origin
	Field   string
	Message string
	// Missing is set when the field is right, but names something that is not there.
	Missing bool
}
