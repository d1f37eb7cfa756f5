package gobin

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/cache"
)

func TestProgramsOfSets(t *testing.T) {
	var all []string
	for _, s := range All() {
		all = append(all, s.Programs()...)
	}
	want := []string{
		"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubeadm", "kubectl",
		"etcd", "coredns", "crictl", "netpol", "kindnetlite", "pause",
	}
	if !slices.Equal(all, want) {
		t.Errorf("got %v", all)
	}
}

func TestBuildOnlyOnce(t *testing.T) {
	repo := t.TempDir()
	mod := filepath.Join(repo, "hello")
	for name, text := range map[string]string{"go.mod": "module hello\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.MkdirAll(mod, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mod, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := Builder{Repo: repo, Cache: cache.Cache{Root: t.TempDir()}, Log: slog.New(slog.DiscardHandler)}
	set := Set{Name: "hello", Dir: "hello", Packages: []string{"."}}
	first, err := b.Build(t.Context(), set, nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first["hello"])
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Build(t.Context(), set, nil)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(again["hello"]); err != nil || !os.SameFile(before, after) {
		t.Errorf("the second build made another file (%v)", err)
	}
	if none, err := b.Build(t.Context(), set, []string{"other"}); err != nil || len(none) != 0 {
		t.Errorf("a program that the set has not: got %v, %v", none, err)
	}
}
