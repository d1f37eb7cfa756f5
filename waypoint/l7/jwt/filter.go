package jwt

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// metadataNamespace is where Envoy's filter leaves payloads.
const metadataNamespace = "envoy.filters.http.jwt_authn"

// Filter is a compiled JwtAuthentication.
type Filter struct {
	providers map[string]*provider
	ordered   []*provider // by name
	rules     []rule
	named     map[string]requirement
	bypass    bool // preflights of CORS
	strip     bool // strip_failure_response
}

// rule says what requests with such a path and headers need; a nil need is nothing.
type rule struct {
	prefix, exact, segments string
	re                      *regexp.Regexp
	fold, connect           bool
	headers                 []match.Header
	queries                 []match.Query
	need                    requirement
}

// PerRoute is what a route says.
type PerRoute struct {
	Disabled    bool
	Requirement string
}

// Denial is the answer to a request that is not authenticated.
type Denial struct {
	Status  int
	Body    string
	Details string
	Header  []httpmsg.Field
}

// Compile compiles the filter.
func Compile(p *jwtv3.JwtAuthentication) (*Filter, error) {
	f := &Filter{providers: map[string]*provider{}, named: map[string]requirement{}, bypass: p.GetBypassCorsPreflight(), strip: p.GetStripFailureResponse()}
	for name, pp := range p.GetProviders() {
		c, err := compileProvider(name, pp)
		if err != nil {
			return nil, strict.AtKey(err, "providers", name)
		}
		f.providers[name] = c
	}
	f.order()
	for name, q := range p.GetRequirementMap() {
		n, err := f.requirement(q)
		if err != nil {
			return nil, strict.AtKey(err, "requirement_map", name)
		}
		f.named[name] = n
	}
	for i, rp := range p.GetRules() {
		r, err := f.rule(rp)
		if err != nil {
			return nil, strict.AtIndex(err, "rules", i)
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

func (f *Filter) rule(p *jwtv3.RequirementRule) (rule, error) {
	m := p.GetMatch()
	r := rule{fold: m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()}
	var err error
	switch k := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		r.prefix = k.Prefix
	case *routev3.RouteMatch_Path:
		r.exact = k.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		r.segments = k.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		if r.re, err = match.FullRegex(k.SafeRegex.GetRegex()); err != nil {
			return r, strict.At(err, "match.safe_regex")
		}
	case *routev3.RouteMatch_ConnectMatcher_:
		r.connect = true
	default:
		return r, strict.Errorf("match.path_specifier", "is required and of a supported kind")
	}
	if m.GetRuntimeFraction() != nil || m.GetGrpc() != nil {
		return r, strict.Errorf("match", "runtime_fraction and grpc are not supported here")
	}
	if r.headers, err = match.CompileHeaders(m.GetHeaders(), "headers"); err != nil {
		return r, strict.At(err, "match")
	}
	if r.queries, err = match.CompileQueries(m.GetQueryParameters(), "query_parameters"); err != nil {
		return r, strict.At(err, "match")
	}
	switch k := p.GetRequirementType().(type) {
	case *jwtv3.RequirementRule_Requires:
		r.need, err = f.requirement(k.Requires)
		err = strict.At(err, "requires")
	case *jwtv3.RequirementRule_RequirementName:
		var ok bool
		if r.need, ok = f.named[k.RequirementName]; !ok {
			err = strict.Errorf("requirement_name", "%q is not in requirement_map", k.RequirementName)
		}
	}
	return r, err
}

func (r *rule) matches(h *httpmsg.Head) bool {
	path := exchange.PathOnly(h.Path)
	ok := false
	switch {
	case r.connect:
		ok = h.Method == "CONNECT"
	case r.re != nil:
		ok = r.re.MatchString(path)
	case r.exact != "":
		ok = path == r.exact || r.fold && strings.EqualFold(path, r.exact)
	case r.segments != "":
		n := len(r.segments)
		ok = hasPrefix(path, r.segments, r.fold) && (len(path) == n || path[n] == '/')
	default:
		ok = hasPrefix(path, r.prefix, r.fold)
	}
	if !ok || !match.MatchHeaders(r.headers, h) {
		return false
	}
	for i := range r.queries {
		if !r.queries[i].Match(h.Path) {
			return false
		}
	}
	return true
}

func hasPrefix(s, p string, fold bool) bool {
	return strings.HasPrefix(s, p) || fold && len(s) >= len(p) && strings.EqualFold(s[:len(p)], p)
}

// Check is nil when the request may pass. i.ClearRoute is set when the route may be another one now. What a good token says goes into headers and metadata as configured.
func (f *Filter) Check(i *exchange.Info, per *PerRoute) *Denial {
	h := i.Head
	for _, p := range f.ordered {
		p.sanitize(&h.Header)
	}
	if f.bypass && h.Method == "OPTIONS" && h.Header.Value("origin") != "" && h.Header.Value("access-control-request-method") != "" {
		return nil
	}
	need, ok := f.need(h, per)
	if !ok {
		return deny(i, "Failed JWT authentication", 500, "jwt_authn_unknown_requirement", f.strip)
	}
	if need == nil {
		return nil
	}
	if s := need.check(f, i); s != statusOK {
		code := 401
		if s == statusAudience {
			code = 403
		}
		return deny(i, string(s), code, "", f.strip)
	}
	return nil
}

// need is what the request needs; ok is false when a route names a requirement that there is not.
func (f *Filter) need(h *httpmsg.Head, per *PerRoute) (need requirement, ok bool) {
	if per != nil {
		if per.Disabled {
			return nil, true
		}
		if per.Requirement != "" {
			need, ok = f.named[per.Requirement]
			return need, ok
		}
	}
	for n := range f.rules {
		if f.rules[n].matches(h) {
			return f.rules[n].need, true
		}
	}
	return nil, true
}

// deny is Envoy's answer.
func deny(i *exchange.Info, body string, code int, details string, strip bool) *Denial {
	if details == "" {
		details = "jwt_authn_access_denied{" + strings.ReplaceAll(body, " ", "_") + "}"
	}
	d := &Denial{Status: code, Body: body, Details: details}
	if strip {
		d.Body = ""
		return d
	}
	path := i.Head.Path
	if o, ok := i.Head.Header.Get("x-envoy-original-path"); ok {
		path = o
	}
	if len(path) > 256 {
		path = path[:256]
	}
	challenge := `Bearer realm="` + i.Head.Scheme + "://" + i.Head.Authority + path + `"`
	if body != string(statusMissed) {
		challenge += `, error="invalid_token"`
	}
	d.Header = []httpmsg.Field{{Key: "www-authenticate", Value: challenge}}
	return d
}
