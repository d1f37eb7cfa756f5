package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestGlobalsLast: global flags may come first.
func TestGlobalsLast(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                                  "",
		"proxy-status":                      "proxy-status",
		"-n shop proxy-status x":            "proxy-status x -n shop",
		"-nshop ps":                         "ps -nshop",
		"--namespace=shop -c k ps":          "ps --namespace=shop -c k",
		"-n shop sandbox exec p -- curl -n": "sandbox exec p -n shop -- curl -n",
		"--help":                            "--help",
		"-n":                                "-n",
		"--wrong x":                         "--wrong x",
	} {
		if got := GlobalsLast(strings.Fields(args)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
}

// TestFile: a file of settings counts after the command line, and knows what it may say.
func TestFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	lookup := func(string) (string, bool) { return file, true }
	for _, c := range []struct{ content, args, namespace, problem string }{
		{"istioNamespace: mesh\n", "", "mesh", ""},
		{"istionamespace: mesh\n", "-i other", "other", ""},
		{"request-timeout: soon\n", "", "", "request-timeout"},
		{"istioNamespce: mesh\n", "", "", "no command has a flag --istioNamespce"},
		{"elsewhere: 1\n", "", "istio-system", ""},
		{"[]", "", "", "settings in"},
	} {
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		g := &Globals{}
		root, cmd, other := &cobra.Command{Use: "root"}, &cobra.Command{Use: "one"}, &cobra.Command{Use: "other"}
		g.Add(cmd.Flags())
		g.AddMesh(cmd.Flags())
		other.Flags().Int("elsewhere", 0, "")
		root.AddCommand(cmd, other)
		if err := cmd.ParseFlags(strings.Fields(c.args)); err != nil {
			t.Fatal(err)
		}
		err := FromFile(cmd, lookup)
		switch {
		case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%q: error %v, want one of %q", c.content, err, c.problem)
		case c.problem == "" && (err != nil || g.IstioNamespace != c.namespace):
			t.Errorf("%q: namespace %q (%v), want %q", c.content, g.IstioNamespace, err, c.namespace)
		}
	}
	if err := FromFile(&cobra.Command{}, func(string) (string, bool) { return file + "none", true }); err == nil {
		t.Error("no error of a file that is not there")
	}
}
