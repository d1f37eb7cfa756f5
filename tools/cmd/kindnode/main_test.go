package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSplitList(t *testing.T) {
	if got := splitList(" etcd, kube-apiserver,,"); !slices.Equal(got, []string{"etcd", "kube-apiserver"}) {
		t.Errorf("got %q", got)
	}
	if splitList("") != nil {
		t.Error("an empty list has elements")
	}
}

func TestFindRepo(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a/b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(deep)
	if got, err := findRepo(); err == nil {
		t.Errorf("found %s where there is none", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.work"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := findRepo()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := filepath.EvalSymlinks(dir); err != nil || got != want && got != dir {
		t.Errorf("got %s, want %s (%v)", got, want, err)
	}
}

func TestUnknownVerb(t *testing.T) {
	for _, args := range [][]string{nil, {"destroy"}} {
		if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), "binaries") {
			t.Errorf("%v: got %v", args, err)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, arg := range []string{"help", "-h", "--help"} {
		var out strings.Builder
		if err := run(t.Context(), []string{arg}, &out); err != nil {
			t.Errorf("%s: %v", arg, err)
		}
		for _, verb := range []string{"binaries", "image", "up", "load", "env", "e2e", "down"} {
			if !strings.Contains(out.String(), "\n  kindnode "+verb+" ") {
				t.Errorf("%s does not tell of %s", arg, verb)
			}
		}
	}
}

func TestKubeconfigPath(t *testing.T) {
	o := &options{dir: "/x", name: "n"}
	if got := o.kubeconfigPath(); got != "/x/n.kubeconfig" {
		t.Errorf("got %s", got)
	}
	o.kubeconfig = "/y"
	if got := o.kubeconfigPath(); got != "/y" {
		t.Errorf("got %s", got)
	}
}

func TestRelink(t *testing.T) {
	at := filepath.Join(t.TempDir(), "link")
	for _, target := range []string{"/a", "/b"} {
		if err := relink(target, at); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(at); err != nil || got != target {
			t.Errorf("got %s, %v", got, err)
		}
	}
}
