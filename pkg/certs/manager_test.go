package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// clockIssuer issues certificates of the test's clock, without cryptography.
type clockIssuer struct {
	calls    atomic.Int32
	lifetime time.Duration
	backdate time.Duration
	failing  atomic.Bool
}

func (c *clockIssuer) Issue(_ context.Context, id spiffe.ID) (*certs.Workload, error) {
	c.calls.Add(1)
	time.Sleep(time.Second) // virtual
	if c.failing.Load() {
		return nil, errors.New("the CA is away")
	}
	leaf := &x509.Certificate{NotBefore: time.Now().Add(-c.backdate), NotAfter: time.Now().Add(c.lifetime)}
	return &certs.Workload{ID: id, Certificate: tls.Certificate{Leaf: leaf, Certificate: [][]byte{nil}}}, nil
}

func TestManagerRenewsAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &clockIssuer{lifetime: 24 * time.Hour}
		m := certs.NewManager(issuer, certs.ManagerConfig{})
		defer m.Close()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := m.Get(t.Context(), alice); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := issuer.calls.Load(); n != 1 {
			t.Fatalf("%d requests for ten callers", n)
		}
		time.Sleep(12*time.Hour - time.Minute)
		if n := issuer.calls.Load(); n != 1 {
			t.Errorf("renewed before half of the lifetime: %d", n)
		}
		time.Sleep(2 * time.Minute)
		if n := issuer.calls.Load(); n != 2 {
			t.Errorf("%d requests after half of the lifetime, want 2", n)
		}
		m.Forget(alice)
		time.Sleep(48 * time.Hour)
		if n := issuer.calls.Load(); n != 2 || len(m.Snapshot()) != 0 {
			t.Errorf("a forgotten identity was renewed: %d", n)
		}
	})
}

// TestManagerRenewsShortLivedCertificates: CAs let a certificate begin in the past, which may be longer ago than its end is ahead.
func TestManagerRenewsShortLivedCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &clockIssuer{lifetime: time.Minute, backdate: 2 * time.Minute}
		m := certs.NewManager(issuer, certs.ManagerConfig{})
		defer m.Close()
		for range 600 {
			if _, err := m.Get(t.Context(), alice); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		// One in half a minute, and the second that each takes.
		if n := issuer.calls.Load(); n < 19 || n > 21 {
			t.Errorf("%d requests in ten minutes, want 20", n)
		}
	})
}

func TestManagerServesTheOldCertificateUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &clockIssuer{lifetime: time.Hour}
		m := certs.NewManager(issuer, certs.ManagerConfig{})
		defer m.Close()
		if _, err := m.Get(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		issuer.failing.Store(true)
		time.Sleep(50 * time.Minute)
		if _, err := m.Get(t.Context(), alice); err != nil {
			t.Errorf("a valid certificate was withheld: %v", err)
		}
		if n := issuer.calls.Load(); n < 10 {
			t.Errorf("only %d attempts in 20 minutes", n)
		}
		time.Sleep(20 * time.Minute)
		if _, err := m.Get(t.Context(), alice); err == nil || !strings.Contains(err.Error(), "the CA is away") {
			t.Errorf("after expiry: %v", err)
		}
		if s := m.Snapshot(); len(s) != 1 || s[0].State != "Unavailable: the CA is away" {
			t.Errorf("%+v", s)
		}
		issuer.failing.Store(false)
		time.Sleep(152 * time.Second)
		if _, err := m.Get(t.Context(), alice); err != nil {
			t.Errorf("after the CA came back: %v", err)
		}
	})
}

func TestManagerFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &clockIssuer{lifetime: -time.Minute}
		m := certs.NewManager(issuer, certs.ManagerConfig{})
		if _, err := m.Get(t.Context(), alice); err == nil {
			t.Error("an expired certificate was handed out")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := m.Get(ctx, bob); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting ends with the context: %v", err)
		}
		m.Close()
		if _, err := m.Get(t.Context(), bob); !errors.Is(err, certs.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
