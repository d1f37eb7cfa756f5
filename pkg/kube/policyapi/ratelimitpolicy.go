package policyapi

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The group and version of the API, and its kinds.
const (
	Group               = "policy.isthmus.dev"
	Version             = "v1alpha1"
	KindRateLimitPolicy = "RateLimitPolicy"
)

// Defaults of what a policy leaves out.
const (
	// DefaultMaxKeys is Spec.MaxKeys.
	DefaultMaxKeys = 1000
	// DefaultStatus is Response.Status.
	DefaultStatus = 429
)

// RateLimitPolicy says how many requests its targets take. Each proxy counts for itself.
type RateLimitPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RateLimitPolicySpec   `json:"spec"`
	Status RateLimitPolicyStatus `json:"status,omitzero"`
}

// RateLimitPolicySpec is what is asked for.
type RateLimitPolicySpec struct {
	// TargetRefs are what the limits are for, in the policy's own namespace.
	TargetRefs []TargetRef `json:"targetRefs"`
	// Mode is Enforce unless it says DryRun: then what would be refused is counted, and passes.
	Mode Mode `json:"mode,omitempty"`
	// Limits hold all at once: a request that one of them refuses is refused.
	Limits []Limit `json:"limits"`
	// MaxKeys is how many combinations of keys a proxy remembers of each limit: of more, the one that was not seen for the longest
	// time is forgotten. 0 is DefaultMaxKeys.
	MaxKeys uint32 `json:"maxKeys,omitempty"`
	// Response is the answer to what is refused.
	Response Response `json:"response,omitzero"`
}

// TargetRef names an object.
type TargetRef struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	// SectionName is the name of a rule of an HTTPRoute or a GRPCRoute; empty is the whole object.
	SectionName string `json:"sectionName,omitempty"`
}

// Mode is what happens to requests over a limit.
type Mode string

// The modes.
const (
	Enforce Mode = "Enforce"
	DryRun  Mode = "DryRun"
)

// Unit is what requests are counted in.
type Unit string

// The units.
const (
	Second Unit = "Second"
	Minute Unit = "Minute"
	Hour   Unit = "Hour"
	Day    Unit = "Day"
)

// Units are all units.
func Units() []string { return []string{string(Second), string(Minute), string(Hour), string(Day)} }

// Duration of a unit; 0 is one that is not known.
func (u Unit) Duration() time.Duration {
	switch u {
	case Second:
		return time.Second
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	case Day:
		return 24 * time.Hour
	}
	return 0
}

// Limit is one limit.
type Limit struct {
	// Name tells limits apart, in logs and when the policy changes; empty is its place in the list.
	Name string `json:"name,omitempty"`
	Rate `json:",inline"`
	// By are keys: each combination of their values may make so many requests. Requests that lack one of them are counted together.
	By []Key `json:"by,omitempty"`
	// Overrides are rates of certain values of By.
	Overrides []Override `json:"overrides,omitempty"`
	// FairShare are keys among whose values the rate is divided when there is not enough for all: who asks for less than its share
	// gets all of it, and the others the rest in equal parts. Without By.
	FairShare []Key `json:"fairShare,omitempty"`
}

// Rate is a number of requests in a unit of time.
type Rate struct {
	Requests uint32 `json:"requests"`
	Per      Unit   `json:"per"`
	// Burst is how many may come at once; 0 is Requests.
	Burst uint32 `json:"burst,omitempty"`
}

// Override is the rate of certain values.
type Override struct {
	// Values are in the order of By.
	Values []string `json:"values"`
	Rate   `json:",inline"`
}

// KeyType is what of a request is a key.
type KeyType string

// The types of keys.
const (
	// Identity is the client's verified SPIFFE identity, ServiceAccount the namespace/name in it, Namespace its namespace.
	Identity       KeyType = "Identity"
	ServiceAccount KeyType = "ServiceAccount"
	Namespace      KeyType = "Namespace"
	// Header is a header of the request, Claim one of its verified token, a string: of the name that the key has.
	Header KeyType = "Header"
	Claim  KeyType = "Claim"
	// Path is the path without query, Method the request's method, Route the name of the route.
	Path   KeyType = "Path"
	Method KeyType = "Method"
	Route  KeyType = "Route"
	// RemoteAddress is the client's IP address.
	RemoteAddress KeyType = "RemoteAddress"
)

// KeyTypes are all types.
func KeyTypes() []string {
	var out []string
	for _, t := range []KeyType{Identity, ServiceAccount, Namespace, Header, Claim, Path, Method, Route, RemoteAddress} {
		out = append(out, string(t))
	}
	return out
}

// Named is whether keys of the type have a name.
func (t KeyType) Named() bool { return t == Header || t == Claim }

// OfSource is whether keys of the type are of the client's identity.
func (t KeyType) OfSource() bool { return t == Identity || t == ServiceAccount || t == Namespace }

// Key is a part of a request that limits are counted by.
type Key struct {
	Type KeyType `json:"type"`
	// Name is of Header and Claim.
	Name string `json:"name,omitempty"`
}

// GRPCStatus is how a request of gRPC is refused.
type GRPCStatus string

// The statuses.
const (
	ResourceExhausted GRPCStatus = "ResourceExhausted"
	Unavailable       GRPCStatus = "Unavailable"
)

// Response is the answer to a request that is refused.
type Response struct {
	// Status is from 400 to 599; 0 is DefaultStatus. Retry-After comes with 429 only.
	Status uint32 `json:"status,omitempty"`
	// GRPCStatus is ResourceExhausted unless it says something else.
	GRPCStatus GRPCStatus `json:"grpcStatus,omitempty"`
	// Headers are set.
	Headers []ResponseHeader `json:"headers,omitempty"`
	// RateLimitHeaders makes every response say how much is left: x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset.
	RateLimitHeaders bool `json:"rateLimitHeaders,omitempty"`
}

// ResponseHeader is a header.
type ResponseHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// RateLimitPolicyStatus is what became of it.
type RateLimitPolicyStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// DeepCopyObject implements runtime.Object.
func (p *RateLimitPolicy) DeepCopyObject() runtime.Object {
	out := *p
	out.ObjectMeta = *p.ObjectMeta.DeepCopy()
	out.Spec.TargetRefs = slices.Clone(p.Spec.TargetRefs)
	out.Spec.Limits = slices.Clone(p.Spec.Limits)
	for i := range out.Spec.Limits {
		l := &out.Spec.Limits[i]
		l.By, l.FairShare, l.Overrides = slices.Clone(l.By), slices.Clone(l.FairShare), slices.Clone(l.Overrides)
		for j := range l.Overrides {
			l.Overrides[j].Values = slices.Clone(l.Overrides[j].Values)
		}
	}
	out.Spec.Response.Headers = slices.Clone(p.Spec.Response.Headers)
	out.Status.Conditions = slices.Clone(p.Status.Conditions)
	return &out
}
