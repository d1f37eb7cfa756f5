package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The test binary starts itself again, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := runChild(os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A tiny run reports every ratio; what they are is for real runs to say. That all proxies route and refuse alike is checked on the way.
func TestRunReports(t *testing.T) {
	var out strings.Builder
	if _, err := run(t.Context(), options{reps: 1, requests: 256, haproxy: "haproxy", envoy: "../../../out/envoy/envoy"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"l7-h1-1-haproxy", "l7-h1-1-envoy", "l7-h1-16-haproxy", "l7-h1-64-envoy", "l7-h2-1x1-haproxy", "l7-h2-4x8-envoy", "l7-h2-16x16-haproxy",
		"l7-hbone-1-envoy", "l7-hbone-16-envoy",
	} {
		if !regexp.MustCompile(`(?m)^ratio ` + name + ` -?\d+\.\d+ <= [\d.]+ (ok|short)$`).MatchString(out.String()) {
			t.Errorf("no ratio %s in\n%s", name, out.String())
		}
	}
}
