// Package archive writes container images as docker archives, without a docker daemon: one layer made of given files.
package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"
)

// File is one entry of the layer: a copy of Source, or a symbolic link to Link. Its folders are made as needed.
type File struct {
	Path   string // absolute in the image
	Source string // file on this machine
	Link   string
	Mode   int64 // 0755 when zero
}

// Image is what an archive holds.
type Image struct {
	Refs       []string // names with tags
	Files      []File
	Entrypoint []string
	Env        []string
}

// Write writes the archive to w. The same image gives the same bytes.
func Write(w io.Writer, img Image) error {
	layer, err := os.CreateTemp("", "layer-*.tar")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	sum := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, sum), img.Files); err != nil {
		return err
	}
	diffID := hex.EncodeToString(sum.Sum(nil))
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      time.Unix(0, 0).UTC(),
		"config":       map[string]any{"Entrypoint": img.Entrypoint, "Env": img.Env},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + diffID}},
		"history":      []any{map[string]any{"created": time.Unix(0, 0).UTC(), "created_by": "kindnode"}},
	})
	if err != nil {
		return err
	}
	configSum := sha256.Sum256(config)
	configName := hex.EncodeToString(configSum[:]) + ".json"
	layerName := diffID + "/layer.tar"
	manifest, err := json.Marshal([]any{map[string]any{"Config": configName, "RepoTags": img.Refs, "Layers": []string{layerName}}})
	if err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out := tar.NewWriter(w)
	for _, e := range []struct {
		name string
		size int64
		r    io.Reader
	}{
		{"manifest.json", int64(len(manifest)), bytes.NewReader(manifest)},
		{configName, int64(len(config)), bytes.NewReader(config)},
		{layerName, size, layer},
	} {
		if err := out.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: e.size, Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := io.Copy(out, e.r); err != nil {
			return err
		}
	}
	return out.Close()
}

// WriteFile writes the archive to a file.
func WriteFile(name string, img Image) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := Write(f, img); err != nil {
		f.Close()
		return fmt.Errorf("image %s: %w", strings.Join(img.Refs, ", "), err)
	}
	return f.Close()
}

func writeLayer(w io.Writer, files []File) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	out := tar.NewWriter(w)
	dirs := map[string]bool{}
	last := ""
	for _, f := range files {
		if f.Path == last {
			continue
		}
		last = f.Path
		if err := writeDirs(out, dirs, path.Dir(f.Path)); err != nil {
			return err
		}
		if err := writeFile(out, f); err != nil {
			return err
		}
	}
	return out.Close()
}

func writeDirs(out *tar.Writer, done map[string]bool, dir string) error {
	if dir == "/" || dir == "." || done[dir] {
		return nil
	}
	if err := writeDirs(out, done, path.Dir(dir)); err != nil {
		return err
	}
	done[dir] = true
	mode := int64(0o755)
	if dir == "/tmp" {
		mode = 0o1777
	}
	return out.WriteHeader(&tar.Header{Name: strings.TrimPrefix(dir, "/") + "/", Mode: mode, Typeflag: tar.TypeDir})
}

func writeFile(out *tar.Writer, f File) error {
	name := strings.TrimPrefix(f.Path, "/")
	if f.Link != "" {
		return out.WriteHeader(&tar.Header{Name: name, Linkname: f.Link, Mode: 0o777, Typeflag: tar.TypeSymlink})
	}
	src, err := os.Open(f.Source)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o755
	}
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: info.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(out, src)
	return err
}
