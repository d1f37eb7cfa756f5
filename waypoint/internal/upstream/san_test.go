package upstream

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
)

// A name that is asked for exactly is one of a certificate's also by its wildcard, as Envoy has it; a wildcard never is for a deeper name,
// a bare domain, or a URI.
func TestExactDNSNamesAndWildcards(t *testing.T) {
	for _, c := range []struct {
		asked     string
		kind      l7.SANKind
		inCert    string
		ofKind    l7.SANKind
		wantMatch bool
	}{
		{"a.example.com", l7.SANDNS, "a.example.com", l7.SANDNS, true},
		{"a.example.com", l7.SANDNS, "A.Example.com", l7.SANDNS, true},
		{"a.example.com", l7.SANDNS, "*.example.com", l7.SANDNS, true},
		{"a.example.com", l7.SANAny, "*.example.com", l7.SANDNS, true},
		{"*.example.com", l7.SANDNS, "*.example.com", l7.SANDNS, true},
		{"b.a.example.com", l7.SANDNS, "*.example.com", l7.SANDNS, false},
		{"example.com", l7.SANDNS, "*.example.com", l7.SANDNS, false},
		{".example.com", l7.SANDNS, "*.example.com", l7.SANDNS, false},
		{"a.example.com", l7.SANDNS, "a*.example.com", l7.SANDNS, false},
		{"com", l7.SANDNS, "*", l7.SANDNS, false},
		{"*.example.com", l7.SANDNS, "a.example.com", l7.SANDNS, false},
		{"a.example.com", l7.SANURI, "a.example.com", l7.SANDNS, false},
		{"spiffe://a/b", l7.SANURI, "spiffe://a/b", l7.SANURI, true},
		{"spiffe://a/b", l7.SANURI, "spiffe://A/b", l7.SANURI, false},
	} {
		got := MatchesSAN([]l7.SANMatcher{{Kind: c.kind, Matcher: match.Exact(c.asked)}}, c.ofKind, c.inCert)
		if got != c.wantMatch {
			t.Errorf("%q asked for, %q in the certificate: %v", c.asked, c.inCert, got)
		}
	}
}
