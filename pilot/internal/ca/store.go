package ca

import (
	"bytes"
	"context"
	"encoding/json"
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

	fileCRL = "ca-crl.pem"

	// filePrevious holds the roots that a rotation has replaced and that have not expired. It is ours: a directory with
	// root-cert.pem is one that an operator filled.
	filePrevious = "previous-roots.pem"
	// fileIntent records a change of several files until all are written.
	fileIntent = ".intent.json"
)

// plugInFiles are those of an authority that an operator plugs in.
func plugInFiles() []string {
	return []string{fileCACert, fileCAKey, fileCertChain, fileRootCert, fileTLSCert, fileTLSKey, fileTLSRoot, fileCRL}
}

// ErrConflict is what Save returns when somebody else has saved since the Load.
var ErrConflict = errors.New("the stored key material has changed meanwhile")

// Store keeps the key material of a self-signed authority: a directory here, a Secret elsewhere.
type Store interface {
	// Load returns all files; none if nothing has been saved yet.
	Load(ctx context.Context) (map[string][]byte, error)
	// Save replaces what Load returned, or fails with ErrConflict when that is not what is stored any more.
	Save(ctx context.Context, loaded, next map[string][]byte) error
}

// DirStore is a Store in a directory. Files have mode 0600 and are replaced as a whole: what is about to be written is first
// recorded in one file, which whoever comes next completes.
type DirStore struct{ Dir string }

// Load reads the files that exist.
func (d DirStore) Load(context.Context) (files map[string][]byte, err error) {
	err = d.locked(func() error {
		files, err = readFiles(d.Dir, fileCACert, fileCAKey, filePrevious)
		return err
	})
	return files, err
}

// Save replaces the files, unless somebody else has since loaded was read: then it fails with [ErrConflict].
func (d DirStore) Save(_ context.Context, loaded, next map[string][]byte) error {
	return d.locked(func() error {
		stored, err := readFiles(d.Dir, fileCACert, fileCAKey, filePrevious)
		if err != nil {
			return err
		}
		if !maps.EqualFunc(stored, loaded, bytes.Equal) {
			return ErrConflict
		}
		record, err := json.Marshal(next)
		if err != nil {
			return fmt.Errorf("save key material: %w", err)
		}
		if err := writeAtomically(filepath.Join(d.Dir, fileIntent), record, 0o600); err != nil {
			return fmt.Errorf("save key material: %w", err)
		}
		return d.complete()
	})
}

// locked runs do while no other control plane reads or writes the directory, after completing what one that crashed has begun.
func (d DirStore) locked(do func() error) error {
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return fmt.Errorf("key material: %w", err)
	}
	dir, err := os.Open(d.Dir)
	if err != nil {
		return fmt.Errorf("key material: %w", err)
	}
	defer dir.Close() // gives the lock back
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", d.Dir, err)
	}
	if err := d.complete(); err != nil {
		return err
	}
	return errors.Join(do(), dir.Sync())
}

// complete writes what the record of intent says, if there is one, and removes it. It may be repeated.
func (d DirStore) complete() error {
	path := filepath.Join(d.Dir, fileIntent)
	record, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var next map[string][]byte
	if err == nil {
		err = json.Unmarshal(record, &next)
	}
	if err != nil {
		return fmt.Errorf("complete key material: %w", err)
	}
	for _, name := range []string{fileCAKey, filePrevious, fileCACert} {
		if data, ok := next[name]; ok {
			if err := writeAtomically(filepath.Join(d.Dir, name), data, 0o600); err != nil {
				return fmt.Errorf("save key material: %w", err)
			}
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("save key material: %w", err)
	}
	return nil
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
