// Package crl keeps the revocation lists of a file, which is read again when it changes.
package crl

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/crl"
)

// List is the revocation lists of a file. Safe for concurrent use.
type List struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[loaded]

	mu      sync.Mutex // guards changed
	changed chan struct{}
}

// loaded is one version of the file. It is immutable.
type loaded struct {
	data  []byte
	lists *crl.Lists
}

// Open reads the lists of a file: one or several in PEM, or one in DER. A file that is not there yet has none: the ConfigMap that it is
// mounted from comes with the first list.
func Open(path string, log *slog.Logger) (*List, error) {
	l := &List{path: path, log: log, changed: make(chan struct{})}
	next, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		log.Warn("there is no certificate revocation list yet: nothing is revoked until there is", "file", path)
		next = &loaded{}
	case err != nil:
		return nil, err
	}
	l.current.Store(next)
	return l, nil
}

func read(path string) (*loaded, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificate revocation list: %w", err)
	}
	lists, err := crl.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("certificate revocation list %s: %w", path, err)
	}
	return &loaded{data, lists}, nil
}

// Check returns an error if a certificate of the chain (leaf first) is revoked by its issuer, who is the next one of the chain or one
// of the roots. Lists that others signed do not count.
func (l *List) Check(chain, roots []*x509.Certificate) error {
	return l.current.Load().lists.Revoked(chain, roots)
}

// Changed is closed when the lists have changed since the call.
func (l *List) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Follow reads the file again whenever it has changed, until ctx ends. What cannot be read is reported, and the last good
// lists stay in force.
func (l *List) Follow(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	failed := ""
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		next, err := read(l.path)
		if errors.Is(err, fs.ErrNotExist) && l.current.Load().data == nil {
			continue // not yet
		}
		if err != nil {
			if err.Error() != failed {
				l.log.Error("the last good certificate revocation list stays in force", "error", err)
			}
			failed = err.Error()
			continue
		}
		failed = ""
		if bytes.Equal(next.data, l.current.Load().data) {
			continue
		}
		l.current.Store(next)
		l.log.Info("certificate revocation lists replaced", "lists", next.lists.Len())
		l.mu.Lock()
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
}
