package policy

import (
	"iter"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// payloadKey is where, in the metadata of the JWT filter, the claims of the verified token are.
const payloadKey = "payload"

// requestPrincipal matches ISSUER/SUBJECT of the verified token. Both may have slashes in them, so each slash of the value may be
// the one between them.
func requestPrincipal(value string) *rbacv3.Principal {
	exact := func(s string) *matcherv3.StringMatcher {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
	}
	prefix := func(s string) *matcherv3.StringMatcher {
		if s == "" {
			return regexMatcher(".*")
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
	}
	suffix := func(s string) *matcherv3.StringMatcher {
		if s == "" {
			return regexMatcher(".*")
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: s}}
	}
	both := func(iss, sub *matcherv3.StringMatcher) *rbacv3.Principal {
		return andPrincipals([]*rbacv3.Principal{claimValue(stringValue(iss), "iss"), claimValue(stringValue(sub), "sub")})
	}
	present := regexMatcher(".+")
	switch {
	case value == "*":
		return both(present, present)
	case strings.HasPrefix(value, "*"):
		tail := value[1:]
		ids := []*rbacv3.Principal{both(present, suffix(tail))}
		for i := range slashesFrom(tail, 0) {
			ids = append(ids, both(suffix(tail[:i]), exact(tail[i+1:])))
		}
		return orPrincipals(ids)
	case strings.HasSuffix(value, "*"):
		head := value[:len(value)-1]
		ids := []*rbacv3.Principal{both(prefix(head), present)}
		for i := range slashes(head) {
			ids = append(ids, both(exact(head[:i]), prefix(head[i+1:])))
		}
		return orPrincipals(ids)
	}
	var ids []*rbacv3.Principal
	for i := range slashes(value) {
		ids = append(ids, both(exact(value[:i]), exact(value[i+1:])))
	}
	switch len(ids) {
	case 0:
		return notPrincipal(anyPrincipal()) // no token has it
	case 1:
		return ids[0]
	}
	return orPrincipals(ids)
}

// slashes yields the indices of the slashes of s, without one at its beginning.
func slashes(s string) iter.Seq[int] { return slashesFrom(s, 1) }

func slashesFrom(s string, first int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := first; i < len(s); i++ {
			if s[i] == '/' && !yield(i) {
				return
			}
		}
	}
}

// claim matches a claim that is a string, or a list of which one member matches.
func claim(value string, path ...string) *rbacv3.Principal {
	m := stringMatcher(value, false)
	return orPrincipals([]*rbacv3.Principal{claimValue(stringValue(m), path...), claimValue(listContains(m), path...)})
}

func claimValue(m *matcherv3.ValueMatcher, path ...string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_SourcedMetadata{
		SourcedMetadata: dynamicMetadata(jwtFilterName, m, append([]string{payloadKey}, path...)...),
	}}
}

func dynamicMetadata(filter string, m *matcherv3.ValueMatcher, path ...string) *rbacv3.SourcedMetadata {
	segments := make([]*matcherv3.MetadataMatcher_PathSegment, 0, len(path))
	for _, p := range path {
		segments = append(segments, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: p}})
	}
	return &rbacv3.SourcedMetadata{
		MetadataMatcher: &matcherv3.MetadataMatcher{Filter: filter, Path: segments, Value: m},
		MetadataSource:  rbacv3.MetadataSource_DYNAMIC,
	}
}

func stringValue(m *matcherv3.StringMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: m}}
}

func listContains(m *matcherv3.StringMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
		MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: stringValue(m)},
	}}}
}
