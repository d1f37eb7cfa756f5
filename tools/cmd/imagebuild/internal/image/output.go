package image

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// References parses names of images.
func References(names []string) ([]name.Reference, error) {
	var out []name.Reference
	for _, n := range names {
		tag, err := name.NewTag(n, name.WeakValidation)
		if err != nil {
			return nil, err
		}
		out = append(out, tag)
	}
	return out, nil
}

// WriteTarball writes an image as `docker load` and `kind load image-archive` read it, under all the names.
func WriteTarball(file string, i *Image, names []name.Reference, compress bool) error {
	tags := map[name.Reference]v1.Image{}
	for _, n := range names {
		tags[n] = i.Image
	}
	return write(file, func(w io.Writer) error {
		if !compress {
			return tarball.MultiRefWrite(tags, w)
		}
		squeezed := gzip.NewWriter(w)
		if err := tarball.MultiRefWrite(tags, squeezed); err != nil {
			return err
		}
		return squeezed.Close()
	})
}

// WriteFile writes bytes under a temporary name first.
func WriteFile(file string, data []byte) error {
	return write(file, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// write never leaves half a file behind.
func write(file string, content func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	err = errors.Join(content(f), f.Chmod(0o644), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.Rename(f.Name(), file)
}

// WriteLayout writes all architectures of an image as an OCI layout, replacing what is there.
func WriteLayout(dir string, images []*Image) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh) // gone already when all went well
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	if _, err := layout.Write(fresh, Index(images)); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}

// Push sends all architectures of an image to a registry, with the credentials of the user's Docker configuration.
func Push(ctx context.Context, to name.Reference, images []*Image, transport http.RoundTripper) (v1.Hash, error) {
	index := Index(images)
	if err := remote.WriteIndex(to, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(transport)); err != nil {
		return v1.Hash{}, fmt.Errorf("push %s: %w", to, err)
	}
	return index.Digest()
}
