package route

import (
	"errors"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

const (
	claimPrefix = "@request.auth.claims"
	// jwtFilter leaves the claims of a verified token in its metadata, under claimPayload.
	jwtFilter    = "envoy.filters.http.jwt_authn"
	claimPayload = "payload"
)

// ClaimMatch matches a claim of the verified token: a string, or a list of which one member matches.
type ClaimMatch struct {
	Path []string // of nested claims
	StringMatch
	Not bool
}

// IsClaim tells names of headers from those of claims, which a VirtualService writes in the same place.
func IsClaim(name string) bool { return strings.HasPrefix(name, "@") }

// ParseClaim reads @request.auth.claims.NAME, with dots or brackets for nested ones: [a][b].
func ParseClaim(name string) ([]string, error) {
	rest, ok := strings.CutPrefix(name, claimPrefix)
	var path []string
	switch {
	case !ok:
	case strings.HasPrefix(rest, "."):
		path = strings.Split(rest[1:], ".")
	case strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]"):
		path = strings.Split(rest[1:len(rest)-1], "][")
	}
	for _, key := range path {
		if key == "" || strings.ContainsAny(key, "[]") {
			path = nil
			break
		}
	}
	if len(path) == 0 {
		return nil, errors.New("is not of the form " + claimPrefix + ".NAME or " + claimPrefix + "[NAME][NAME]")
	}
	return path, nil
}

func (c ClaimMatch) envoy() *matcherv3.MetadataMatcher {
	out := &matcherv3.MetadataMatcher{Filter: jwtFilter, Invert: c.Not}
	for _, key := range append([]string{claimPayload}, c.Path...) {
		out.Path = append(out.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	text := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: c.StringMatch.envoy()}}
	member := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
		MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: text},
	}}}
	out.Value = &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{
		ValueMatchers: []*matcherv3.ValueMatcher{text, member},
	}}}
	return out
}
