package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func entries(t *testing.T, r io.Reader) (names []string, contents map[string][]byte) {
	t.Helper()
	contents = map[string][]byte{}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return names, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		contents[h.Name] = body
	}
}

func TestWrite(t *testing.T) {
	src := filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(src, []byte("program"), 0o644); err != nil {
		t.Fatal(err)
	}
	img := Image{
		Refs:       []string{"r/x:1"},
		Entrypoint: []string{"/usr/bin/prog"},
		Files: []File{
			{Path: "/usr/sbin/prog", Link: "/usr/bin/prog"},
			{Path: "/usr/bin/prog", Source: src},
			{Path: "/usr/bin/prog", Source: src},
		},
	}
	var first, second bytes.Buffer
	if err := errors.Join(Write(&first, img), Write(&second, img)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("one image gives two archives")
	}
	_, outer := entries(t, &first)
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(outer["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	layer := outer[manifest[0].Layers[0]]
	names, files := entries(t, bytes.NewReader(layer))
	if diff := cmp.Diff([]string{"usr/", "usr/bin/", "usr/bin/prog", "usr/sbin/", "usr/sbin/prog"}, names); diff != "" {
		t.Error(diff)
	}
	if string(files["usr/bin/prog"]) != "program" {
		t.Errorf("content: %q", files["usr/bin/prog"])
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(outer[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(layer)
	if diff := cmp.Diff([]string{"sha256:" + hex.EncodeToString(sum[:])}, config.RootFS.DiffIDs); diff != "" {
		t.Error(diff)
	}
}

func TestWriteWithoutSource(t *testing.T) {
	if err := Write(io.Discard, Image{Files: []File{{Path: "/x", Source: "/does/not/exist"}}}); err == nil {
		t.Error("an absent file is accepted")
	}
}
