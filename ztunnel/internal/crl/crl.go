// Package crl knows which certificates have been revoked.
package crl

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// List is the revocation lists of a file, which is read again when it changes. Safe for concurrent use.
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
	lists []*x509.RevocationList
}

// Open reads the lists of a file: one or several, in PEM or one in DER.
func Open(path string, log *slog.Logger) (*List, error) {
	l := &List{path: path, log: log, changed: make(chan struct{})}
	next, err := read(path)
	if err != nil {
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
	lists, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("certificate revocation list %s: %w", path, err)
	}
	return &loaded{data, lists}, nil
}

// Parse reads revocation lists, PEM or DER.
func Parse(data []byte) ([]*x509.RevocationList, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil // nothing is revoked
	}
	block, rest := pem.Decode(data)
	if block == nil {
		one, err := x509.ParseRevocationList(data)
		if err != nil {
			return nil, err
		}
		return []*x509.RevocationList{one}, nil
	}
	var out []*x509.RevocationList
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("a PEM block of type %q, want X509 CRL", block.Type)
		}
		one, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// ErrRevoked says that a certificate must not be believed any more.
var ErrRevoked = errors.New("certificate revoked")

// Check returns ErrRevoked if a certificate of the chain (leaf first) is revoked by its issuer, who is the next one of the
// chain or one of the roots. Lists that others signed do not count.
func (l *List) Check(chain, roots []*x509.Certificate) error {
	lists := l.current.Load().lists
	for i, cert := range chain {
		for _, list := range lists {
			if !bytes.Equal(list.RawIssuer, cert.RawIssuer) || !names(list, cert) {
				continue
			}
			for _, issuer := range append(append([]*x509.Certificate{}, chain[i+1:]...), roots...) {
				if bytes.Equal(issuer.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(issuer) == nil {
					return fmt.Errorf("%w: serial number %s", ErrRevoked, cert.SerialNumber)
				}
			}
		}
	}
	return nil
}

func names(list *x509.RevocationList, cert *x509.Certificate) bool {
	for _, entry := range list.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			return true
		}
	}
	return false
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
		l.log.Info("certificate revocation lists replaced", "lists", len(next.lists))
		l.mu.Lock()
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
}
