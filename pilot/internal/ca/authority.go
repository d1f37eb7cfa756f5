package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

const (
	// backdate covers clocks that differ.
	backdate  = 2 * time.Minute
	rootTTL   = 10 * 365 * 24 * time.Hour
	rootGrace = 20
)

// Options of an Authority.
type Options struct {
	// TrustDomain names the organisation of a self-signed root.
	TrustDomain string
	// DefaultTTL is for requests that name none, MaxTTL bounds the others.
	DefaultTTL, MaxTTL time.Duration
	// RootTTL is the lifetime of a self-signed root: ten years when 0.
	RootTTL time.Duration
	// RootGrace is the share of that lifetime before its end, in percent, in which the root is replaced: 20 when 0.
	RootGrace int
	Log       *slog.Logger
	// Now is time.Now but for tests.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.DefaultTTL == 0 {
		o.DefaultTTL = 24 * time.Hour
	}
	if o.MaxTTL == 0 {
		o.MaxTTL = 90 * 24 * time.Hour
	}
	if o.RootTTL == 0 {
		o.RootTTL = rootTTL
	}
	if o.RootGrace == 0 {
		o.RootGrace = rootGrace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Authority signs certificates. Its key material may be replaced while it serves.
type Authority struct {
	options Options
	reload  reload
	current atomic.Pointer[material]
	changed chan struct{} // holds one token after a change
}

// reload reads key material; now is what is in use, nil at the start.
type reload func(ctx context.Context, now *material) (*material, error)

// Open returns the authority of a directory: the one that an operator has plugged in there, or a self-signed one whose key
// material is kept there. With an empty dir, the self-signed one lives in memory only.
func Open(ctx context.Context, dir string, options Options) (*Authority, error) {
	return open(ctx, options, func(a *Authority) reload {
		if dir == "" {
			return a.inMemory
		}
		return a.inDirectory(dir)
	})
}

func open(ctx context.Context, options Options, source func(*Authority) reload) (*Authority, error) {
	a := &Authority{options: options.withDefaults(), changed: make(chan struct{}, 1)}
	a.reload = source(a)
	m, err := a.reload(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	a.current.Store(m)
	return a, nil
}

// inMemory makes a root once.
func (a *Authority) inMemory(_ context.Context, now *material) (*material, error) {
	if now != nil {
		return now, nil
	}
	files, err := a.newRoot(nil)
	if err != nil {
		return nil, err
	}
	return newMaterial(files[fileCACert], files[fileCAKey], nil, files[fileCACert], a.options.Now())
}

// inDirectory follows what an operator has plugged in, from when there is such a thing, or keeps a root of its own. Files that are
// replaced one by one do not lead back to a self-signed root.
func (a *Authority) inDirectory(dir string) reload {
	store, plugIn := DirStore{Dir: dir}, false
	return func(ctx context.Context, _ *material) (*material, error) {
		if plugIn = plugIn || isPlugIn(dir); plugIn {
			return loadPlugIn(dir, a.options.Now())
		}
		return a.loadSelfSigned(ctx, store)
	}
}

// loadPlugIn reads what an operator has put into dir.
func loadPlugIn(dir string, now time.Time) (*material, error) {
	files, err := readFiles(dir, plugInFiles()...)
	if err != nil {
		return nil, err
	}
	return plugInMaterial(dir, files, now)
}

// plugInMaterial puts together what an operator has put into the place where, in either of the two shapes.
func plugInMaterial(where string, files map[string][]byte, now time.Time) (*material, error) {
	cert, key, chain, root := files[fileCACert], files[fileCAKey], files[fileCertChain], files[fileRootCert]
	names := []string{fileCACert, fileCAKey, fileRootCert}
	if len(files[fileTLSCert]) > 0 {
		cert, key, chain, root = files[fileTLSCert], files[fileTLSKey], nil, files[fileTLSRoot]
		names = []string{fileTLSCert, fileTLSKey, fileTLSRoot}
	}
	for i, data := range [][]byte{cert, key, root} {
		if len(data) == 0 {
			return nil, fmt.Errorf("%s lacks %s: a plugged-in authority needs %v", where, names[i], names)
		}
	}
	m, err := newMaterial(cert, key, chain, root, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if m.crl, err = parseCRL(files[fileCRL]); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", where, fileCRL, err)
	}
	return m, nil
}

// loadSelfSigned reads the stored root, and makes one when there is none or it nears its end. When somebody else does the
// same at the same time, theirs counts.
func (a *Authority) loadSelfSigned(ctx context.Context, store Store) (*material, error) {
	for {
		files, err := store.Load(ctx)
		if err != nil {
			return nil, err
		}
		now := a.options.Now()
		var old *material
		if len(files[fileCACert]) > 0 {
			roots := append(bytes.Clone(files[fileCACert]), files[filePrevious]...)
			m, err := newMaterial(files[fileCACert], files[fileCAKey], nil, unexpired(roots, now), now)
			if err != nil {
				return nil, fmt.Errorf("stored root: %w", err)
			}
			if now.Before(a.renewalOf(m.cert)) {
				return m, nil
			}
			old = m
			a.options.Log.Info("the root certificate nears its end; making the next one", "expires", m.cert.NotAfter)
		}
		next, err := a.newRoot(old)
		if err != nil {
			return nil, err
		}
		next[filePrevious] = unexpired(append(bytes.Clone(files[fileCACert]), files[filePrevious]...), now)
		if err := store.Save(ctx, files, next); err != nil && !errors.Is(err, ErrConflict) {
			return nil, err
		}
	}
}

// renewalOf is when a root is replaced.
func (a *Authority) renewalOf(root *x509.Certificate) time.Time {
	return root.NotAfter.Add(-root.NotAfter.Sub(root.NotBefore) * time.Duration(a.options.RootGrace) / 100)
}

// unexpired keeps the certificates that are still worth trusting.
func unexpired(bundle []byte, now time.Time) []byte {
	var out []byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && now.Before(cert.NotAfter) {
			out = append(out, encodeCert(cert)...)
		}
	}
	return out
}

// newRoot makes a self-signed root, as files. The one that follows another has the same name and key: whoever trusts only the old
// one accepts what is signed from now on, until they hear of the new one.
func (a *Authority) newRoot(old *material) (map[string][]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.options.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{a.options.TrustDomain}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(a.options.RootTTL), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	var key crypto.Signer
	if old != nil {
		key, template.RawSubject = old.key, old.cert.RawSubject
	} else if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the root certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		fileCACert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		fileCAKey:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return serial, nil
}

// Follow looks for new key material until ctx ends: a rotated root, files that an operator has replaced. What cannot be
// used is reported, and the last good material goes on. It looks when it is woken, and from time to time.
func (a *Authority) Follow(ctx context.Context, every time.Duration, wake <-chan struct{}) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	failed := ""
	for {
		select {
		case <-ticker.C:
		case <-wake:
		case <-ctx.Done():
			return
		}
		now := a.current.Load()
		next, err := a.reload(ctx, now)
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			a.options.Log.Error("new CA key material is not usable; the last good one goes on", "error", err)
		case err == nil && !next.same(now):
			failed = ""
			a.current.Store(next)
			a.options.Log.Info("CA key material replaced", "serial", next.cert.SerialNumber, "expires", next.cert.NotAfter)
			select {
			case a.changed <- struct{}{}:
			default:
			}
		case err == nil:
			failed = ""
		}
	}
}

// Changed holds a token after the roots may have changed.
func (a *Authority) Changed() <-chan struct{} { return a.changed }

// RootPEM is the bundle that peers verify with.
func (a *Authority) RootPEM() []byte { return bytes.Clone(a.current.Load().rootPEM) }

// CRL is the list of revoked certificates that the operator has plugged in; empty if there is none.
func (a *Authority) CRL() []byte { return bytes.Clone(a.current.Load().crl) }

// Expiry is when the root and the signing chain end.
func (a *Authority) Expiry() (root, chain time.Time) {
	m := a.current.Load()
	return m.rootNotAfter(), m.notAfter()
}

// requestError is a request that no authority would sign.
type requestError struct{ err error }

func (e *requestError) Error() string { return e.err.Error() }

func (e *requestError) Unwrap() error { return e.err }

// Sign issues a certificate with the request's key for id, whatever names the request asks for. The chain is as the CSR
// service answers: the leaf, one intermediate an element, the root bundle. A TTL of 0 or less is the default.
func (a *Authority) Sign(csrPEM []byte, id spiffe.ID, ttl time.Duration) ([]string, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, &requestError{errors.New("certificate signing request is not properly encoded")}
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, &requestError{fmt.Errorf("failed to parse X.509 certificate signing request: %w", err)}
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, &requestError{fmt.Errorf("the request is not signed with its key: %w", err)}
	}
	if ttl <= 0 {
		ttl = a.options.DefaultTTL
	}
	if ttl > a.options.MaxTTL {
		return nil, &requestError{fmt.Errorf("requested TTL %s is greater than the max allowed TTL %s", ttl, a.options.MaxTTL)}
	}
	m := a.current.Load()
	template, err := a.leaf(m, ttl)
	if err != nil {
		return nil, err
	}
	template.URIs = []*url.URL{id.URL()}
	if csr.Subject.CommonName != "" {
		template.Subject.CommonName = id.String()
		if template.ExtraExtensions, err = criticalName(id); err != nil {
			return nil, err
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.cert, csr.PublicKey, m.key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	chain := []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + "\n"}
	return append(append(chain, m.intermediatePEM...), string(m.rootPEM)), nil
}

// criticalName is the identity as a critical extension, which crypto/x509 makes of it only when the subject is empty.
func criticalName(id spiffe.ID) ([]pkix.Extension, error) {
	const uniformResourceIdentifier = 6 // RFC 5280 section 4.2.1.6
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: uniformResourceIdentifier, Bytes: []byte(id.String())}})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", id, err)
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: value}}, nil
}

// leaf is what all issued certificates have in common.
func (a *Authority) leaf(m *material, ttl time.Duration) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.options.Now()
	end := now.Add(ttl)
	if limit := m.notAfter(); limit.Before(end) {
		end = limit
	}
	if !now.Before(end) {
		return nil, fmt.Errorf("the CA certificate has expired on %s", m.notAfter().Format(time.RFC3339))
	}
	return &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-backdate), NotAfter: end, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, nil
}

// ServingCertificate issues a certificate for the control plane's own server.
func (a *Authority) ServingCertificate(names []string, ttl time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	m := a.current.Load()
	template, err := a.leaf(m, ttl)
	if err != nil {
		return nil, err
	}
	template.DNSNames = names
	der, err := x509.CreateCertificate(rand.Reader, template, m.cert, key.Public(), m.key)
	if err != nil {
		return nil, fmt.Errorf("sign the serving certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	out := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: crypto.Signer(key), Leaf: leaf}
	for _, c := range m.intermediates {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, nil
}

// Roots is the pool that client certificates are verified with.
func (a *Authority) Roots() *x509.CertPool { return pool(a.current.Load().roots) }
