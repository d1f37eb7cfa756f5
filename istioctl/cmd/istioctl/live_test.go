//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// TestLive runs testdata/live/*.txt against a sandbox with Bookinfo: what people type at a mesh, and what it answers. It needs root, and
// the programs that make build leaves in bin.
func TestLive(t *testing.T) {
	t.Parallel()
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := filepath.Abs("../../../samples")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("istioctl-test-%d", os.Getpid())
	sandbox := func(args ...string) {
		t.Helper()
		out, err := exec.Command(filepath.Join(bin, "istioctl"), append([]string{"sandbox", "--name", name}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("istioctl sandbox %v (make build makes it): %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() { sandbox("down") })
	sandbox("up", "--profile", "demo", "-f", filepath.Join(samples, "bookinfo/platform/kube/bookinfo.yaml"), "-f", filepath.Join(samples, "curl/curl.yaml"))
	sandbox("label", "namespace", "default", "istio.io/dataplane-mode=ambient")
	testscript.Run(t, testscript.Params{Dir: "testdata/live", Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": until}, Setup: func(env *testscript.Env) error {
		env.Setenv("HOME", env.WorkDir)
		env.Setenv("ISTIOCTL_SANDBOX", name)
		env.Setenv("SANDBOX", name)
		env.Setenv("SAMPLES", samples)
		env.Setenv("REAL", filepath.Join(bin, "istioctl"))
		return nil
	}})
}

// scripted lets what a script waits for end the script.
type scripted struct {
	testing.TB
	ts *testscript.TestScript
}

func (s scripted) Helper() {}

func (s scripted) Fatalf(format string, args ...any) { s.ts.Fatalf(format, args...) }

// until runs a command until its output has a line that matches: until PATTERN COMMAND...
func until(ts *testscript.TestScript, _ bool, args []string) {
	meant := regexp.MustCompile("(?m)" + args[0])
	var err error
	wait.Until(scripted{ts: ts}, 2*time.Minute, fmt.Sprintf("%q matches", args[0]), func() bool {
		err = ts.Exec(args[1], args[2:]...)
		return err == nil && meant.MatchString(ts.ReadFile("stdout"))
	}, func() string { return fmt.Sprintf("%v:\n%s%s", err, ts.ReadFile("stdout"), ts.ReadFile("stderr")) })
}
