package kube

import (
	"strings"
	"testing"

	meshapi "istio.io/api/mesh/v1alpha1"
)

// The first field that does not fit is named; what fits, and what only decoding can tell, is not.
func TestFitMessage(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "",
		`{"defaultVisibility": "NONE", "apply_to_sidecars": true, "policies": [{"visibility": 2}]}`: "",
		`{"defaultVisibility": 9}`:                   "", // no name of an enum, which numbers need not have
		`{"defaultVisibility": null}`:                "",
		`{"defaultVisibility": "SOME"}`:              `at.defaultVisibility: "SOME" is not one of VISIBILITY_UNSPECIFIED, NONE, NAMESPACE, PUBLIC`,
		`{"defaultVisibility": true}`:                "at.defaultVisibility: a boolean cannot be used here, want one of VISIBILITY_UNSPECIFIED",
		`{"applyToSidecars": "yes"}`:                 "at.applyToSidecars: a string cannot be used here, want true or false",
		`{"policies": [{}, {"matchingRules": {}}]}`:  "at.policies[1].matchingRules: a object cannot be used here, want a list",
		`{"policies": [{"matchingRules": [{"a":1}]}`: "at: ", // no JSON
		`{"policies": [{"matchingRules": [{"namespaceSelector": {"matchLabels": {"a": 1}}}]}]}`: "at.policies[0].matchingRules[0].namespaceSelector.matchLabels.a: a number cannot be used here, want a string",
		`{"default": "NONE"}`: "at.default: ServiceEntryVisibility has no such field",
		`"NONE"`:              "at: a string cannot be used here, want an object",
	} {
		err := FitMessage(&meshapi.ServiceEntryVisibility{}, []byte(text), "at")
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
