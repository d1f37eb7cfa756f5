// Package cache keeps what was built in folders named by the content it was built from.
package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Key accumulates everything a result depends on. The zero value is not usable: see NewKey.
type Key struct {
	sum hash.Hash
	err error
}

// NewKey starts a key with strings such as a recipe's name, versions and flags.
func NewKey(parts ...string) *Key {
	return (&Key{sum: sha256.New()}).Add(parts...)
}

// Add mixes strings in; ("a", "b") and ("ab") give different keys.
func (k *Key) Add(parts ...string) *Key {
	for _, p := range parts {
		fmt.Fprintf(k.sum, "s%d:%s", len(p), p)
	}
	return k
}

// Tree mixes in the names, modes and contents of the regular files and links under root, in a fixed order.
// A root that is a single file counts as a tree of one.
func (k *Key) Tree(root string) *Key {
	if k.err != nil {
		return k
	}
	k.err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			k.Add("link", rel, target)
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		k.Add("file", rel, (info.Mode().Perm() & 0o111).String(), fmt.Sprint(info.Size()))
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(k.sum, f)
		return err
	})
	return k
}

// Sum gives the key as 16 hex digits.
func (k *Key) Sum() (string, error) {
	if k.err != nil {
		return "", fmt.Errorf("hash inputs: %w", k.err)
	}
	return hex.EncodeToString(k.sum.Sum(nil))[:16], nil
}

// Cache is a folder of results.
type Cache struct{ Root string }

// Dir is the folder of the result, and whether it is there.
func (c Cache) Dir(name, key string) (string, bool) {
	dir := filepath.Join(c.Root, name+"-"+key)
	_, err := os.Stat(dir)
	return dir, err == nil
}

// Make gives the folder of the result, filling it by build when it is not there. A build that fails leaves nothing
// behind, and one that is interrupted leaves only a folder nobody looks at, which the next build removes.
func (c Cache) Make(name, key string, build func(dir string) error) (string, error) {
	dir, ok := c.Dir(name, key)
	if ok {
		return dir, nil
	}
	tmp := filepath.Join(c.Root, ".building-"+name+"-"+key)
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o755)); err != nil {
		return "", err
	}
	if err := build(tmp); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	return dir, os.Rename(tmp, dir)
}
