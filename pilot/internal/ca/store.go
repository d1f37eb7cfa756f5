package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Files of an authority, as the Secrets istio-ca-secret, cacerts and kubernetes.io/tls call them.
const (
	fileCACert    = "ca-cert.pem"
	fileCAKey     = "ca-key.pem"
	fileCertChain = "cert-chain.pem"
	fileRootCert  = "root-cert.pem"

	fileTLSCert = "tls.crt"
	fileTLSKey  = "tls.key"
	fileTLSRoot = "ca.crt"

	// filePrevious holds the roots that a rotation has replaced and that have not expired. It is ours: a directory with
	// root-cert.pem is one that an operator filled.
	filePrevious = "previous-roots.pem"
)

// ErrConflict is what Save returns when somebody else has saved since the Load.
var ErrConflict = errors.New("the stored key material has changed meanwhile")

// Store keeps the key material of a self-signed authority: a directory here, a Secret elsewhere.
type Store interface {
	// Load returns all files; none if nothing has been saved yet.
	Load(ctx context.Context) (map[string][]byte, error)
	// Save replaces what Load returned, or fails with ErrConflict when that is not what is stored any more.
	Save(ctx context.Context, loaded, next map[string][]byte) error
}

// DirStore is a Store in a directory. Files are written with mode 0600 and replaced atomically, key first.
type DirStore struct{ Dir string }

// Load reads the files that exist.
func (d DirStore) Load(context.Context) (map[string][]byte, error) {
	return readFiles(d.Dir, fileCACert, fileCAKey, filePrevious)
}

// Save holds the directory's lock, so that two control planes that start together end up with one root.
func (d DirStore) Save(ctx context.Context, loaded, next map[string][]byte) error {
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return fmt.Errorf("save key material: %w", err)
	}
	dir, err := os.Open(d.Dir)
	if err != nil {
		return fmt.Errorf("save key material: %w", err)
	}
	defer dir.Close() // gives the lock back
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", d.Dir, err)
	}
	stored, err := d.Load(ctx)
	if err != nil {
		return err
	}
	if !maps.EqualFunc(stored, loaded, bytes.Equal) {
		return ErrConflict
	}
	// A crash between two files must leave something that can be continued from: a key without a certificate gets one, and
	// a root that is both current and previous counts once.
	for _, name := range []string{fileCAKey, filePrevious, fileCACert} {
		if data, ok := next[name]; ok && !bytes.Equal(data, stored[name]) {
			if err := writeAtomically(filepath.Join(d.Dir, name), data, 0o600); err != nil {
				return fmt.Errorf("save key material: %w", err)
			}
		}
	}
	return dir.Sync()
}

// readFiles returns those of the files that exist.
func readFiles(dir string, names ...string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("read key material: %w", err)
		default:
			files[name] = data
		}
	}
	return files, nil
}

// writeAtomically replaces path by a file that is complete and on disk.
func writeAtomically(path string, data []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// isPlugIn tells whether an operator has put an authority into dir.
func isPlugIn(dir string) bool {
	return slices.ContainsFunc([]string{fileRootCert, fileCertChain, fileTLSCert, fileTLSKey}, func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	})
}
