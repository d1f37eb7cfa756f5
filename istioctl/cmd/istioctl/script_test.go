package main

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
)

// TestMain makes this test binary istioctl, for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"istioctl": func() {
		os.Exit(run(context.Background(), os.Args[1:]))
	}})
}

// TestScripts runs testdata/*.txt: what a person types, and what is answered, without a cluster.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: setup(t)})
}

// TestEnvironment: flags that are not given are taken from the environment.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	cmd, _, err := root().Find([]string{"install"})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.ParseFlags([]string{"--revision", "given"}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"ISTIOCTL_ISTIONAMESPACE": "mesh", "ISTIOCTL_REVISION": "env", "ISTIOCTL_READINESS_TIMEOUT": "soon"}
	err = cli.FromEnvironment(cmd.Flags(), func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err == nil || !strings.Contains(err.Error(), "ISTIOCTL_READINESS_TIMEOUT") {
		t.Errorf("error %v, want one of ISTIOCTL_READINESS_TIMEOUT", err)
	}
	if got := cmd.Flag("istioNamespace").Value.String(); got != "mesh" {
		t.Errorf("istioNamespace %q", got)
	}
	if got := cmd.Flag("revision").Value.String(); got != "given" {
		t.Errorf("revision %q", got)
	}
}
