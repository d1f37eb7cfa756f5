// Package rootfs collects the files of an image and writes them as a tar archive that depends on nothing but them.
package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Tree is a file system in memory; large files stay where they are until they are written.
type Tree struct {
	nodes map[string]node // by path without leading slash
}

type node struct {
	kind     byte // of archive/tar
	mode     int64
	uid, gid int
	target   string // of a link
	data     []byte
	source   string // of a regular file, when it isn't data
}

// New returns an empty tree.
func New() *Tree { return &Tree{nodes: map[string]node{}} }

// merged are the directories that Debian has merged into /usr.
func merged() []string { return []string{"bin", "sbin", "lib", "lib64"} }

// clean makes a path relative and puts it where Debian's merge puts it.
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged(), first) {
		name = "usr/" + name
	}
	return name
}

// Merge adds the links that stand for the directories merged into /usr.
func (t *Tree) Merge() {
	for _, dir := range merged() {
		t.nodes[dir] = node{kind: tar.TypeSymlink, mode: 0o777, target: "usr/" + dir}
		t.Dir("/usr/"+dir, 0o755, 0, 0)
	}
}

// Dir adds a directory.
func (t *Tree) Dir(name string, mode int64, uid, gid int) {
	t.nodes[clean(name)] = node{kind: tar.TypeDir, mode: mode, uid: uid, gid: gid}
}

// Data adds a file of these bytes.
func (t *Tree) Data(name string, mode int64, data []byte) {
	t.nodes[clean(name)] = node{kind: tar.TypeReg, mode: mode, data: data}
}

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.nodes[clean(name)] = node{kind: tar.TypeSymlink, mode: 0o777, target: target}
}

// Program adds an executable that stays on disk until it is written.
func (t *Tree) Program(name, source string) {
	t.nodes[clean(name)] = node{kind: tar.TypeReg, mode: 0o755, source: source}
}

// Copy adds a file, or a directory with all below it.
func (t *Tree) Copy(name, source string) error {
	return filepath.WalkDir(source, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(relative))
		switch {
		case entry.IsDir():
			t.Dir(to, 0o755, 0, 0)
		case entry.Type().IsRegular():
			info, err := entry.Info()
			if err != nil {
				return err
			}
			mode := int64(0o644)
			if info.Mode()&0o111 != 0 {
				mode = 0o755
			}
			t.nodes[clean(to)] = node{kind: tar.TypeReg, mode: mode, source: file}
		default:
			return fmt.Errorf("%s: only files and directories can be copied", file)
		}
		return nil
	})
}

// Unpack adds what a tar archive holds and keep wants. Device nodes and set-uid bits never are.
func (t *Tree) Unpack(archive io.Reader, keep func(name string) bool) error {
	reader := tar.NewReader(archive)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := clean(header.Name)
		if name == "" || !keep("/"+name) {
			continue
		}
		n := node{kind: header.Typeflag, mode: header.Mode & 0o777, uid: header.Uid, gid: header.Gid, target: header.Linkname}
		switch header.Typeflag {
		case tar.TypeReg:
			if n.data, err = io.ReadAll(reader); err != nil {
				return err
			}
		case tar.TypeDir:
			if existing, ok := t.nodes[name]; ok && existing.kind == tar.TypeDir {
				continue
			}
		case tar.TypeSymlink:
		case tar.TypeLink:
			original, ok := t.nodes[clean(header.Linkname)]
			if !ok {
				return fmt.Errorf("%s is a hard link to %s, which is not here", header.Name, header.Linkname)
			}
			n = original
		default:
			return fmt.Errorf("%s: entries of type %q are not supported", header.Name, header.Typeflag)
		}
		t.nodes[name] = n
	}
}

// Has tells whether the path exists, following links.
func (t *Tree) Has(name string) bool {
	_, ok := t.resolve(name, 0)
	return ok
}

// Read returns a file, following links.
func (t *Tree) Read(name string) ([]byte, error) {
	n, ok := t.resolve(name, 0)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	case n.source != "":
		return os.ReadFile(n.source)
	}
	return n.data, nil
}

func (t *Tree) resolve(name string, depth int) (node, bool) {
	n, ok := t.nodes[clean(name)]
	if !ok || n.kind != tar.TypeSymlink || depth > 20 {
		return n, ok && n.kind != tar.TypeSymlink
	}
	target := n.target
	if !path.IsAbs(target) {
		target = path.Join(path.Dir("/"+clean(name)), target)
	}
	return t.resolve(target, depth+1)
}

// Files are the paths of all regular files and links, in order.
func (t *Tree) Files() []string {
	var out []string
	for name, n := range t.nodes {
		if n.kind != tar.TypeDir {
			out = append(out, "/"+name)
		}
	}
	slices.Sort(out)
	return out
}

// Add takes over everything of another tree.
func (t *Tree) Add(other *Tree) { maps.Copy(t.nodes, other.nodes) }

// Tar writes the archive. Every entry bears the same time, and directories on the way are made.
func (t *Tree) Tar(at time.Time) ([]byte, error) {
	t.parents()
	names := slices.Sorted(maps.Keys(t.nodes))
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		n := t.nodes[name]
		data := n.data
		if n.source != "" {
			var err error
			if data, err = os.ReadFile(n.source); err != nil {
				return nil, err
			}
		}
		header := &tar.Header{
			Typeflag: n.kind, Name: name, Mode: n.mode, Uid: n.uid, Gid: n.gid, Linkname: n.target, Size: int64(len(data)),
			ModTime: at, Format: tar.FormatPAX,
		}
		if n.kind == tar.TypeDir {
			header.Name += "/"
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(data); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil { // writes the end
		return nil, err
	}
	return out.Bytes(), nil
}

func (t *Tree) parents() {
	for _, name := range slices.Collect(maps.Keys(t.nodes)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := t.nodes[dir]; !ok {
				t.nodes[dir] = node{kind: tar.TypeDir, mode: 0o755}
			}
		}
	}
}
