package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestPrecheck runs testdata/upgrade/*.txt, beside a cluster that has what is upgraded.
func TestPrecheck(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata/upgrade", Setup: func(env *testscript.Env) error {
		env.Setenv("KUBECONFIG", serve(t, readManifests(t, "testdata/upgrade/cluster.yaml"), env.WorkDir))
		env.Setenv("HOME", env.WorkDir)
		return nil
	}})
}
