package match

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Query is a compiled QueryParameterMatcher.
type Query struct {
	name    string
	value   String
	present bool // there is no value to compare
	want    bool
}

// CompileQueries compiles a list of QueryParameterMatchers.
func CompileQueries(ps []*routev3.QueryParameterMatcher, field string) ([]Query, error) {
	var out []Query
	for i, p := range ps {
		q := Query{name: p.GetName(), present: true, want: true}
		switch k := p.GetQueryParameterMatchSpecifier().(type) {
		case *routev3.QueryParameterMatcher_StringMatch:
			v, err := CompileString(k.StringMatch)
			if err != nil {
				return nil, strict.AtIndex(strict.At(err, "string_match"), field, i)
			}
			q.value, q.present = v, false
		case *routev3.QueryParameterMatcher_PresentMatch:
			q.want = k.PresentMatch
		}
		out = append(out, q)
	}
	return out, nil
}

// Match is whether the query of the path (with its ?) matches.
func (q *Query) Match(path string) bool {
	v, ok := QueryParameter(path, q.name)
	if q.present {
		return ok == q.want
	}
	return ok && q.value.Match(v)
}

// QueryParameter returns the first value of a parameter as it is in the path, not decoded.
func QueryParameter(path, name string) (string, bool) {
	_, query, ok := strings.Cut(path, "?")
	if !ok {
		return "", false
	}
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		k, v, _ := strings.Cut(pair, "=")
		if k == name && pair != "" {
			return v, true
		}
	}
	return "", false
}
