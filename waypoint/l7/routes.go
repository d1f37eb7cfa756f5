package l7

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Routes is a compiled RouteConfiguration.
type Routes struct {
	Name string

	exact    map[string]*virtualHost
	suffixes []domainTable // *.example.com, the longest first
	prefixes []domainTable // example.*, the longest first
	any      *virtualHost  // *

	ignorePort   bool
	specificWins bool // most_specific_header_mutations_wins
	internalOnly []string
	hosts        []*virtualHost
}

// domainTable has wildcard domains of one length.
type domainTable struct {
	length int
	hosts  map[string]*virtualHost
}

// virtualHost is a compiled VirtualHost.
type virtualHost struct {
	name       string
	tls        routev3.VirtualHost_TlsRequirementType
	index      routeIndex
	routes     []*Route
	redirectTo *Route // of tls

	attemptsInRequest, attemptsInResponse bool
}

// CompileRoutes makes the table of a route configuration. The error names the field that cannot be honoured.
func CompileRoutes(p *routev3.RouteConfiguration) (*Routes, error) {
	if err := strict.Check(p); err != nil {
		return nil, err
	}
	return compileRoutes(p)
}

// level is what a route inherits from around it.
type level struct {
	request, response *mutate.Headers
	overrides         []override
	mirrors           []mirrorPolicy
	retry             *Retry
	maxBody           uint32 // of direct responses
}

func compileRoutes(p *routev3.RouteConfiguration) (*Routes, error) {
	r := &Routes{
		Name: p.GetName(), exact: map[string]*virtualHost{}, ignorePort: p.GetIgnorePortInHostMatching(),
		specificWins: p.GetMostSpecificHeaderMutationsWins(),
	}
	for _, h := range p.GetInternalOnlyHeaders() {
		r.internalOnly = append(r.internalOnly, strings.ToLower(h))
	}
	top := level{maxBody: uint32Or(p.GetMaxDirectResponseBodySizeBytes(), 4096)}
	var err error
	if top.request, err = mutate.CompileHeaders("request", p.GetRequestHeadersToAdd(), p.GetRequestHeadersToRemove()); err != nil {
		return nil, err
	}
	if top.response, err = mutate.CompileHeaders("response", p.GetResponseHeadersToAdd(), p.GetResponseHeadersToRemove()); err != nil {
		return nil, err
	}
	if top.overrides, err = compileOverrides(p.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	if top.mirrors, err = compileMirrors(p.GetRequestMirrorPolicies()); err != nil {
		return nil, err
	}
	for i, v := range p.GetVirtualHosts() {
		vh, err := r.virtualHost(v, &top)
		if err == nil {
			err = r.domains(v.GetDomains(), vh)
		}
		if err != nil {
			return nil, strict.AtIndex(err, "virtual_hosts", i)
		}
		r.hosts = append(r.hosts, vh)
	}
	longest := func(a, b domainTable) int { return b.length - a.length }
	slices.SortFunc(r.suffixes, longest)
	slices.SortFunc(r.prefixes, longest)
	return r, nil
}

func (r *Routes) domains(ds []string, vh *virtualHost) error {
	if len(ds) == 0 {
		return strict.Errorf("domains", "is required")
	}
	for i, d := range ds {
		d = strings.ToLower(d)
		dup := false
		switch {
		case d == "*":
			dup, r.any = r.any != nil, vh
		case strings.HasPrefix(d, "*"):
			r.suffixes, dup = addDomain(r.suffixes, d[1:], vh)
		case strings.HasSuffix(d, "*"):
			r.prefixes, dup = addDomain(r.prefixes, d[:len(d)-1], vh)
		default:
			_, dup = r.exact[d]
			r.exact[d] = vh
		}
		if dup {
			return strict.AtIndex(strict.Errorf("", "only unique values for domains are permitted: %q", d), "domains", i)
		}
	}
	return nil
}

func addDomain(ts []domainTable, d string, vh *virtualHost) ([]domainTable, bool) {
	for i := range ts {
		if ts[i].length == len(d) {
			_, dup := ts[i].hosts[d]
			ts[i].hosts[d] = vh
			return ts, dup
		}
	}
	return append(ts, domainTable{len(d), map[string]*virtualHost{d: vh}}), false
}

func (r *Routes) virtualHost(p *routev3.VirtualHost, top *level) (*virtualHost, error) {
	vh := &virtualHost{
		name: p.GetName(), tls: p.GetRequireTls(),
		attemptsInRequest: p.GetIncludeRequestAttemptCount(), attemptsInResponse: p.GetIncludeAttemptCountInResponse(),
	}
	in := level{maxBody: top.maxBody}
	var err error
	if in.request, err = mutate.CompileHeaders("request", p.GetRequestHeadersToAdd(), p.GetRequestHeadersToRemove()); err != nil {
		return nil, err
	}
	if in.response, err = mutate.CompileHeaders("response", p.GetResponseHeadersToAdd(), p.GetResponseHeadersToRemove()); err != nil {
		return nil, err
	}
	if in.overrides, err = compileOverrides(p.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	in.overrides = mergeOverrides(in.overrides, top.overrides)
	if in.mirrors, err = compileMirrors(p.GetRequestMirrorPolicies()); err != nil {
		return nil, err
	}
	if len(in.mirrors) == 0 {
		in.mirrors = top.mirrors
	}
	if p.GetRetryPolicy() != nil {
		if in.retry, err = compileRetry(p.GetRetryPolicy()); err != nil {
			return nil, strict.At(err, "retry_policy")
		}
	}
	for i, rp := range p.GetRoutes() {
		rt, err := r.route(rp, vh, &in, top)
		if err != nil {
			return nil, strict.AtIndex(err, "routes", i)
		}
		rt.index = i
		vh.routes = append(vh.routes, rt)
	}
	vh.index.build(vh.routes)
	if vh.tls != routev3.VirtualHost_NONE {
		vh.redirectTo = &Route{VirtualHost: vh.name, redirect: &redirect{https: true, status: 301}, host: vh}
	}
	return vh, nil
}

// find chooses the virtual host of an authority.
func (r *Routes) find(authority string, mem *exchange.Scratch) *virtualHost {
	if len(r.exact) == 0 && len(r.suffixes) == 0 && len(r.prefixes) == 0 {
		return r.any
	}
	host := mem.Lower(authority)
	if r.ignorePort {
		host, _ = splitPort(host)
	}
	if host == "" {
		return r.any
	}
	if vh := r.exact[host]; vh != nil {
		return vh
	}
	for i := range r.suffixes {
		if t := &r.suffixes[i]; t.length < len(host) {
			if vh := t.hosts[host[len(host)-t.length:]]; vh != nil {
				return vh
			}
		}
	}
	for i := range r.prefixes {
		if t := &r.prefixes[i]; t.length < len(host) {
			if vh := t.hosts[host[:t.length]]; vh != nil {
				return vh
			}
		}
	}
	return r.any
}

// splitPort cuts ":80" off an authority.
func splitPort(a string) (host, port string) {
	i := strings.LastIndexByte(a, ':')
	if i < 0 || strings.IndexByte(a[i:], ']') >= 0 {
		return a, ""
	}
	if a[0] != '[' && strings.IndexByte(a, ':') != i {
		return a, "" // a bare IPv6 address
	}
	for _, c := range a[i+1:] {
		if c < '0' || c > '9' {
			return a, ""
		}
	}
	return a[:i], a[i+1:]
}

// only returns the route when there is but one, in one virtual host that takes everything.
func (r *Routes) only() *Route {
	if len(r.hosts) != 1 || r.any != r.hosts[0] || len(r.any.routes) != 1 {
		return nil
	}
	return r.any.routes[0]
}
