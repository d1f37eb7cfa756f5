package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/image"
	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/spec"
)

// root is the repository.
const root = "../../../../.."

func described() *spec.File {
	return &spec.File{
		Labels: map[string]string{"org.opencontainers.image.vendor": "Isthmus"},
		Debug:  spec.Content{Packages: []string{"busybox-static"}, Links: map[string]string{"/bin/sh": "busybox"}},
		Images: map[string]*spec.Image{
			"sleep": {
				Content: spec.Content{
					Binaries: []spec.Binary{{Package: "./samples/curl/cmd/sleep", To: "/bin/sleep"}},
					Links:    map[string]string{"/usr/local/bin/nap": "/bin/sleep"}, Files: map[string]string{"/licenses/LICENSE": "LICENSE"},
					Dirs: map[string]string{"/data": "5:6 0750"},
				},
				Title: "Sleeps", User: "5:6", Entrypoint: []string{"/bin/sleep"}, Ports: []string{"80", "53/udp"},
			},
			"broken": {
				Content: spec.Content{Packages: []string{"curl"}, Without: []string{"libcurl4"}},
				User:    "0:0", Entrypoint: []string{"/usr/bin/curl"},
			},
		},
	}
}

func builder(t *testing.T, debug bool) *image.Builder {
	t.Helper()
	// Packages are kept for later runs: fetching them again is all that would be tested.
	out, err := filepath.Abs(filepath.Join(root, "out/images/test"))
	if err != nil {
		t.Fatal(err)
	}
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return image.New(image.Config{
		Root: absolute, Out: out, Version: "1.2.3", Revision: "abc", Created: time.Unix(1700000000, 0), Release: "bookworm", Debug: debug,
		Log: slog.New(slog.DiscardHandler),
	}, described())
}

func build(t *testing.T, b *image.Builder, arch string) *image.Image {
	t.Helper()
	i, err := b.Build(t.Context(), "sleep", arch)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func digest(t *testing.T, i interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// files lists the entries of all layers by path.
func files(t *testing.T, i v1.Image) map[string]*tar.Header {
	t.Helper()
	layers, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*tar.Header{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for archive := tar.NewReader(r); ; {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			out[h.Name] = h
		}
	}
	return out
}

func TestTheSameEachTimeAndForBothArchitectures(t *testing.T) {
	first := build(t, builder(t, false), "amd64")
	if again := build(t, builder(t, false), "amd64"); digest(t, first.Image) != digest(t, again.Image) {
		t.Error("two builds differ")
	}
	other := build(t, builder(t, false), "arm64")
	config, err := other.Image.ConfigFile()
	if err != nil || config.Architecture != "arm64" || config.Config.User != "5:6" || config.Created.Unix() != 1700000000 ||
		config.Config.Labels["org.opencontainers.image.version"] != "1.2.3" || len(config.Config.ExposedPorts) != 2 {
		t.Errorf("%v: %+v", err, config)
	}
	entries := files(t, other.Image)
	for path, h := range entries {
		if h.ModTime.Unix() != 1700000000 || strings.HasPrefix(path, "bin/") {
			t.Errorf("%s: %+v", path, h)
		}
	}
	for _, want := range []string{"etc/ssl/certs/ca-certificates.crt", "usr/bin/sleep", "usr/local/bin/nap", "licenses/LICENSE", "usr/share/sbom/sleep.spdx.json", "bin", "tmp/"} {
		if entries[want] == nil {
			t.Errorf("%s is missing", want)
		}
	}
	if h := entries["data/"]; h == nil || h.Uid != 5 || h.Gid != 6 || h.Mode != 0o750 {
		t.Errorf("/data: %+v", h)
	}
	var bill struct{ Packages []struct{ Name string } }
	if err := json.Unmarshal(first.SBOM, &bill); err != nil || len(bill.Packages) < 3 || bill.Packages[2].Name != "stdlib" {
		t.Errorf("%v: %s", err, first.SBOM)
	}
}

func TestDebugHasAShell(t *testing.T) {
	i := build(t, builder(t, true), "amd64")
	if entries := files(t, i.Image); entries["usr/bin/busybox"] == nil || entries["usr/bin/sh"] == nil || !strings.Contains(string(i.SBOM), "pkg:deb/debian/busybox-static@") {
		t.Error("no shell, or the bill does not know it")
	}
}

func TestMissingLibrariesAreFound(t *testing.T) {
	_, err := builder(t, false).Build(t.Context(), "broken", "amd64")
	if err == nil || !strings.Contains(err.Error(), "/usr/bin/curl: needs libcurl.so.4") {
		t.Error(err)
	}
}

func TestOutputs(t *testing.T) {
	b := builder(t, false)
	images := []*image.Image{build(t, b, "amd64"), build(t, b, "arm64")}
	dir := t.TempDir()
	names, err := image.References([]string{"docker.io/isthmus/sleep:dev", "docker.io/other/sleep:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, compress := range []bool{false, true} {
		file := filepath.Join(dir, "sleep.tar")
		if err := image.WriteTarball(file, images[0], names, compress); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			tag := n.(name.Tag)
			loaded, err := tarball.Image(func() (io.ReadCloser, error) { return open(file, compress) }, &tag)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := must(loaded.ConfigName()), must(images[0].Image.ConfigName()); got != want {
				t.Errorf("%s: %s, want %s", n, got, want)
			}
		}
	}
	oci := filepath.Join(dir, "oci")
	for range 2 { // the second replaces the first
		if err := image.WriteLayout(oci, images); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(oci)
	if err != nil || digest(t, index) != digest(t, image.Index(images)) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v: %v", entries, err)
	}
}

func must(h v1.Hash, err error) string {
	if err != nil {
		return err.Error()
	}
	return h.String()
}

func open(file string, compressed bool) (io.ReadCloser, error) {
	f, err := os.ReadFile(file)
	if err != nil || !compressed {
		return io.NopCloser(bytes.NewReader(f)), err
	}
	return gzip.NewReader(bytes.NewReader(f))
}

func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	b := builder(t, false)
	images := []*image.Image{build(t, b, "amd64"), build(t, b, "arm64")}
	to, err := image.References([]string{strings.TrimPrefix(server.URL, "http://") + "/mesh/sleep:1"})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := image.Push(context.Background(), to[0], images, http.DefaultTransport)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		got, err := remote.Image(to[0], remote.WithPlatform(v1.Platform{OS: "linux", Architecture: i.Arch}))
		if err != nil {
			t.Fatal(err)
		}
		if digest(t, got) != digest(t, i.Image) {
			t.Errorf("%s: another image came back", i.Arch)
		}
	}
	tags, err := remote.List(to[0].Context())
	if err != nil || !slices.Equal(tags, []string{"1"}) || sent.String() != digest(t, image.Index(images)) {
		t.Errorf("%v, %v, %s", err, tags, sent)
	}
}
