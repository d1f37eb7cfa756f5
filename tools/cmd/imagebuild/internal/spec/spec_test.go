package spec_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/spec"
)

func TestTheProjectsImages(t *testing.T) {
	f, err := spec.Read("../../../../../docker/images.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pilot", "ztunnel", "proxyv2", "install-cni", "istioctl", "app"} {
		if f.Images[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range f.Names() {
		written, err := os.ReadFile(filepath.Join("../../../../../docker", name, "Dockerfile"))
		if err != nil || string(written) != f.Dockerfile(name) {
			t.Errorf("docker/%s/Dockerfile is stale (%v): go run ./tools/cmd/imagebuild -dockerfiles", name, err)
		}
	}
	got, err := f.Select([]string{"pilot", "examples-bookinfo-reviews-*", "pilot"})
	if err != nil || !slices.Equal(got, []string{"examples-bookinfo-reviews-v1", "examples-bookinfo-reviews-v2", "examples-bookinfo-reviews-v3", "pilot"}) {
		t.Error(err, got)
	}
	if _, err := f.Select([]string{"nginx"}); err == nil || !strings.Contains(err.Error(), "ztunnel") {
		t.Error(err)
	}
}

func TestReadReportsProblems(t *testing.T) {
	for text, want := range map[string]string{
		"images: {a: {user: '1'}}":                                          "user",
		"images: {a: {user: '1:1'}}":                                        "entrypoint",
		"images: {a: {user: '1:1', entrypoint: [/x], binaries: [{to: x}]}}": "absolute",
		"images: {a: {user: '1:1', entrypoint: [/x], entrypiont: [/x]}}":    "entrypiont",
	} {
		file := filepath.Join(t.TempDir(), "images.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := spec.Read(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
