package crl_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	revocation "github.com/isthmus-mesh/isthmus/pkg/crl"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/crl"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) leaf(t *testing.T, serial int64) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a authority) list(t *testing.T, serials ...int64) []byte {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func TestRevocation(t *testing.T) {
	ca, imposter := newAuthority(t, "ca"), newAuthority(t, "ca")
	file := filepath.Join(t.TempDir(), "ca-crl.pem")
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(file+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(append(ca.list(t, 7, 8), newAuthority(t, "other").list(t, 9)...))
	var log podtest.Log
	list, err := crl.Open(file, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	check := func(serial int64) error {
		return list.Check([]*x509.Certificate{ca.leaf(t, serial)}, []*x509.Certificate{ca.cert})
	}
	for serial, want := range map[int64]bool{7: true, 8: true, 9: false, 10: false} {
		if got := errors.Is(check(serial), revocation.ErrRevoked); got != want {
			t.Errorf("serial %d: revoked %t", serial, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { list.Follow(ctx, 5*time.Millisecond) })
	defer func() { cancel(); following.Wait() }()
	changed := list.Changed()
	write(imposter.list(t, 10)) // of the same name, with another key
	<-changed
	if check(10) != nil || check(7) != nil {
		t.Error("a list that our authority has not signed counts, or the old one still does")
	}
	changed = list.Changed()
	write([]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"))
	log.Wait(t, "the last good certificate revocation list stays in force")
	write(ca.list(t, 10))
	<-changed
	if !errors.Is(check(10), revocation.ErrRevoked) {
		t.Error("after a broken file the next good one is not taken")
	}
}

// TestFilesThatAreNotThereYet: a ConfigMap that is mounted comes with the first list. What is there must be one.
func TestFilesThatAreNotThereYet(t *testing.T) {
	ca := newAuthority(t, "ca")
	file := filepath.Join(t.TempDir(), "ca-crl.pem")
	var log podtest.Log
	list, err := crl.Open(file, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	log.Wait(t, "there is no certificate revocation list yet")
	chain, roots := []*x509.Certificate{ca.leaf(t, 7)}, []*x509.Certificate{ca.cert}
	if err := list.Check(chain, roots); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { list.Follow(ctx, 5*time.Millisecond) })
	defer func() { cancel(); following.Wait() }()
	changed := list.Changed()
	if err := os.WriteFile(file+".new", ca.list(t, 7), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	<-changed
	if err := list.Check(chain, roots); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("after the first list: %v", err)
	}
	if err := os.WriteFile(file+".bad", []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := crl.Open(file+".bad", nil); err == nil || !strings.Contains(err.Error(), "ca-crl.pem.bad") {
		t.Errorf("%v", err)
	}
}
