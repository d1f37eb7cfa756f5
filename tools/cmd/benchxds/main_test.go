package main

import (
	"regexp"
	"strings"
	"testing"
)

// A run on a toy mesh reports every ratio; what they are is for real runs to say.
func TestRunReports(t *testing.T) {
	var out strings.Builder
	if _, err := run(t.Context(), options{replicas: 2, services: 60, small: 2, large: 4, changes: 3}, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"xds-route-latency", "xds-endpoint-latency", "xds-route-bytes", "xds-endpoint-bytes", "xds-route-cpu-scale"} {
		if !regexp.MustCompile(`(?m)^ratio ` + name + ` \d+\.\d+ <= [\d.]+ (ok|short)$`).MatchString(out.String()) {
			t.Errorf("no ratio %s in\n%s", name, out.String())
		}
	}
}
