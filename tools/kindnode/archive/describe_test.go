package archive

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseManifest(t *testing.T) {
	for _, config := range []string{"sha256:abc", "abc.json", "blobs/sha256/abc"} {
		got, err := parseManifest(strings.NewReader(`[{"Config":"` + config + `","RepoTags":["r/x:1","r/x:2"],"Layers":[]}]`))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Summary{{ID: "sha256:abc", Refs: []string{"r/x:1", "r/x:2"}}}, got); diff != "" {
			t.Errorf("%s: %s", config, diff)
		}
	}
}

func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "own.tar")
	if err := WriteFile(own, Image{Refs: []string{"r/x:1"}}); err != nil {
		t.Fatal(err)
	}
	got, err := Describe(own)
	if err != nil || len(got) != 1 || !strings.HasPrefix(got[0].ID, "sha256:") || len(got[0].ID) != 71 {
		t.Errorf("got %v, %v", got, err)
	}
	other := filepath.Join(dir, "other.tar")
	f, err := os.Create(other)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tar.NewWriter(f).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Describe(other); err == nil {
		t.Error("an archive of something else is accepted")
	}
}
