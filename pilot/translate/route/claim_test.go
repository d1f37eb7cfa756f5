package route

import (
	"slices"
	"testing"
)

func TestParseClaim(t *testing.T) {
	for name, want := range map[string][]string{
		"@request.auth.claims.group":         {"group"},
		"@request.auth.claims.realm.role":    {"realm", "role"},
		"@request.auth.claims[realm][role]":  {"realm", "role"},
		"@request.auth.claims[a.b/c]":        {"a.b/c"},
		"@request.auth.claims":               nil,
		"@request.auth.claims.":              nil,
		"@request.auth.claims[]":             nil,
		"@request.auth.claims[a]b[c]":        nil,
		"@request.auth.principal":            nil,
		"@request.auth.claimsgroup":          nil,
		"@request.auth.claims.group[nested]": nil,
	} {
		if got, err := ParseClaim(name); !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestClaimMatch(t *testing.T) {
	m := Match{Claims: []ClaimMatch{{Path: []string{"realm", "role"}, StringMatch: StringMatch{Kind: Exact, Value: "editor"}, Not: true}}}
	got := m.envoy().GetDynamicMetadata()
	if m.All() || len(got) != 1 || !got[0].GetInvert() || len(got[0].GetPath()) != 3 || got[0].GetPath()[0].GetKey() != "payload" || got[0].GetFilter() != "envoy.filters.http.jwt_authn" {
		t.Errorf("%v", got)
	}
	if err := m.envoy().ValidateAll(); err != nil {
		t.Error(err)
	}
}
