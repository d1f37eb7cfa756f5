package l7

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

type pathKind uint8

const (
	pathPrefix pathKind = iota
	pathExact
	pathSegments // path_separated_prefix
	pathRegex
	pathConnect
)

// routeMatch is a compiled RouteMatch.
type routeMatch struct {
	kind    pathKind
	connect bool
	text    string // in lower case when fold
	fold    bool
	re      *regexp.Regexp
	begins  string // what all begins with that re matches
	headers []match.Header
	queries []match.Query
	chance  fraction
	partial bool // chance is not always
	grpc    bool
	// metadata and state are dynamic_metadata and filter_state.
	metadata []*match.Metadata
	state    []match.State
}

func compileRouteMatch(p *routev3.RouteMatch) (routeMatch, error) {
	m := routeMatch{fold: !orTrue(p.GetCaseSensitive()), grpc: p.GetGrpc() != nil}
	var err error
	switch k := p.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		m.kind, m.text = pathPrefix, k.Prefix
	case *routev3.RouteMatch_Path:
		m.kind, m.text = pathExact, k.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		m.kind, m.text = pathSegments, k.PathSeparatedPrefix
		if !strings.HasPrefix(m.text, "/") || len(m.text) < 2 || strings.HasSuffix(m.text, "/") || strings.ContainsAny(m.text, "?#") {
			return m, strict.Errorf("path_separated_prefix", "%q: must begin with a slash and not end with one", m.text)
		}
	case *routev3.RouteMatch_SafeRegex:
		m.kind = pathRegex
		if m.re, err = match.FullRegex(k.SafeRegex.GetRegex()); err != nil {
			return m, strict.At(err, "safe_regex")
		}
		m.begins = literalPrefix(m.re)
	case *routev3.RouteMatch_ConnectMatcher_:
		m.kind, m.connect = pathConnect, true
	default:
		return m, strict.Errorf("path_specifier", "is required")
	}
	if m.fold {
		m.text = strings.ToLower(m.text)
	}
	if m.headers, err = match.CompileHeaders(p.GetHeaders(), "headers"); err != nil {
		return m, err
	}
	if m.queries, err = match.CompileQueries(p.GetQueryParameters(), "query_parameters"); err != nil {
		return m, err
	}
	for i, d := range p.GetDynamicMetadata() {
		c, err := match.CompileMetadata(d)
		if err != nil {
			return m, strict.AtIndex(err, "dynamic_metadata", i)
		}
		m.metadata = append(m.metadata, c)
	}
	for i, f := range p.GetFilterState() {
		c, err := match.CompileState(f)
		if err != nil {
			return m, strict.AtIndex(err, "filter_state", i)
		}
		m.state = append(m.state, c)
	}
	if f := p.GetRuntimeFraction(); f != nil {
		m.chance, m.partial = fractionOf(f.GetDefaultValue()), true
	}
	return m, nil
}

// pathMatches compares the path without its query.
func (m *routeMatch) pathMatches(path string) bool {
	switch m.kind {
	case pathPrefix:
		return hasPrefix(path, m.text, m.fold)
	case pathExact:
		return len(path) == len(m.text) && hasPrefix(path, m.text, m.fold)
	case pathSegments:
		return hasPrefix(path, m.text, m.fold) && (len(path) == len(m.text) || path[len(m.text)] == '/')
	case pathRegex:
		return m.re.MatchString(path)
	}
	return false
}

func hasPrefix(s, lower string, fold bool) bool {
	if len(s) < len(lower) {
		return false
	}
	if !fold {
		return s[:len(lower)] == lower
	}
	return strings.EqualFold(s[:len(lower)], lower)
}

// matches is whether everything but the path matches too; path is without the query.
func (m *routeMatch) matches(r *Request, path string) bool {
	if m.partial && !m.chance.hit(r.Random) {
		return false
	}
	if m.grpc && !r.GRPC {
		return false
	}
	if !match.MatchHeaders(m.headers, r.Head) {
		return false
	}
	for i := range m.queries {
		if !m.queries[i].Match(r.Head.Path) {
			return false
		}
	}
	for _, md := range m.metadata {
		if !md.Match(&r.Info) {
			return false
		}
	}
	for i := range m.state {
		if !m.state[i].Match(&r.Info) {
			return false
		}
	}
	if m.connect {
		return r.Head.Method == "CONNECT"
	}
	return r.Head.Path != "" && m.pathMatches(path)
}

// matched is the part of the path that a prefix_rewrite replaces.
func (m *routeMatch) matched(path string) int {
	switch m.kind {
	case pathPrefix, pathSegments, pathExact:
		return len(m.text)
	}
	return len(exchange.PathOnly(path))
}
