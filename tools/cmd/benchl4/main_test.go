package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/tools/internal/upgradebed"
)

// The test binary starts itself again, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == upgradebed.ChildArg {
		if err := upgradebed.RunChild(os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := runChild(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A tiny run reports every ratio; what they are is for real runs to say.
func TestRunReports(t *testing.T) {
	var out strings.Builder
	if _, err := run(t.Context(), options{reps: 1, bulk: 1, trips: 64, setups: 5, idle: 20, open: 10, calls: 2, haproxy: "haproxy"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"hbone-bulk-1", "hbone-bulk-64", "hbone-bulk-1-xnet", "hbone-bulk-64-xnet", "hbone-rtt-1", "hbone-rtt-64", "hbone-stream-setup",
		"hbone-stream-setup-xnet", "l4-idle-memory", "l4-idle-memory-awake", "upgrade-dropped",
	} {
		if !regexp.MustCompile(`(?m)^ratio ` + name + ` -?\d+\.\d+ <= [\d.]+ (ok|short)$`).MatchString(out.String()) {
			t.Errorf("no ratio %s in\n%s", name, out.String())
		}
	}
}
