package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// fileCheck is how often files with certificates are looked at, at the most.
const fileCheck = time.Second

// secureCiphers are the suites of TLS 1.2 where nothing else is said, as Envoy's: those with forward secrecy and an AEAD.
func secureCiphers() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	}
}

// terminators keep what is needed to end the TLS of clients, by the chain's settings: as long as certificates and authorities are the
// same, so is the configuration, and sessions can be resumed.
type terminators struct {
	mu sync.Mutex // guards of
	of map[*l7.ServerTLS]*terminator
}

// terminator ends TLS with one chain's settings.
type terminator struct {
	want *l7.ServerTLS

	mu     sync.Mutex // guards the rest
	used   material
	config *tls.Config
	looked time.Time // at files
	stamps []time.Time
	files  material // what was read from files
}

// material is what certificates and authorities are in force. It is compared by identity.
type material struct {
	certificates []*tls.Certificate
	authorities  *l7.Authorities
	own          *certs.Workload
}

func (m material) equal(o material) bool {
	return slices.Equal(m.certificates, o.certificates) && m.authorities == o.authorities && m.own == o.own
}

// forget drops those whose chains are gone.
func (t *terminators) forget(cfg *l7.Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.of) == 0 {
		return
	}
	live := map[*l7.ServerTLS]bool{}
	for _, l := range cfg.Listeners {
		for _, c := range l.Chains {
			live[c.TLS] = true
		}
		if l.Default != nil {
			live[l.Default.TLS] = true
		}
	}
	for want := range t.of {
		if !live[want] {
			delete(t.of, want)
		}
	}
}

func (t *terminators) get(want *l7.ServerTLS) *terminator {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[*l7.ServerTLS]*terminator{}
	}
	term := t.of[want]
	if term == nil {
		term = &terminator{want: want}
		t.of[want] = term
	}
	return term
}

// serverTLS is the configuration for a handshake that begins now.
func (s *Server) serverTLS(ctx context.Context, want *l7.ServerTLS, secrets map[string]*l7.Secret) (*tls.Config, error) {
	var own *certs.Workload
	if slices.Contains(want.Certificates, l7.OwnCertificate) || want.Validation == l7.OwnRoots {
		if s.deps.Certs == nil {
			return nil, errors.New("the proxy has no certificate")
		}
		var err error
		if own, err = s.deps.Certs.Get(ctx); err != nil {
			return nil, fmt.Errorf("own certificate: %w", err)
		}
	}
	return s.terminators.get(want).current(s.deps.Clock, secrets, own)
}

func (t *terminator) current(now func() time.Time, secrets map[string]*l7.Secret, own *certs.Workload) (*tls.Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next, err := t.materialLocked(now, secrets, own)
	if err != nil {
		return nil, err
	}
	if t.config == nil || !t.used.equal(next) {
		t.used, t.config = next, t.configure(next, now)
	}
	return t.config, nil
}

// materialLocked collects what is in force now.
func (t *terminator) materialLocked(now func() time.Time, secrets map[string]*l7.Secret, own *certs.Workload) (material, error) {
	m := material{authorities: t.want.Trusted}
	var missing []string
	for _, name := range t.want.Certificates {
		switch secret := secrets[name]; {
		case name == l7.OwnCertificate:
			m.own = own
			m.certificates = append(m.certificates, &own.Certificate)
		case secret == nil || secret.Certificate == nil:
			missing = append(missing, name)
		default:
			m.certificates = append(m.certificates, secret.Certificate)
		}
	}
	switch secret := secrets[t.want.Validation]; {
	case t.want.Validation == "":
	case t.want.Validation == l7.OwnRoots:
		m.own = own
		m.authorities = nil // own.Roots
	case secret == nil || secret.Authorities == nil:
		return m, fmt.Errorf("the secret %s is not there", t.want.Validation)
	default:
		m.authorities = secret.Authorities
	}
	if len(t.want.Files) > 0 || t.want.CAFile != "" {
		if err := t.readLocked(now()); err != nil {
			return m, err
		}
		m.certificates = append(m.certificates, t.files.certificates...)
		if t.want.CAFile != "" {
			m.authorities = t.files.authorities
		}
	}
	// One of several certificates is enough, as with Envoy's files that are not there yet.
	if len(m.certificates) == 0 {
		return m, fmt.Errorf("the secret %s is not there", missing[0])
	}
	return m, nil
}

// readLocked reads files that have changed. What was read before goes on while they are gone, or half written.
func (t *terminator) readLocked(now time.Time) error {
	if !t.looked.IsZero() && now.Sub(t.looked) < fileCheck {
		return nil
	}
	names := []string{t.want.CAFile, t.want.CRLFile}
	for _, f := range t.want.Files {
		names = append(names, f.Certificate, f.Key)
	}
	stamps := make([]time.Time, len(names))
	for i, name := range names {
		if info, err := os.Stat(name); name != "" && err == nil {
			stamps[i] = info.ModTime()
		}
	}
	if slices.EqualFunc(stamps, t.stamps, time.Time.Equal) {
		t.looked = now
		return nil
	}
	next, err := readFiles(t.want)
	if err != nil {
		if len(t.files.certificates) > 0 || t.files.authorities != nil {
			t.looked = now
			return nil
		}
		return err
	}
	t.files, t.stamps, t.looked = next, stamps, now
	return nil
}

func readFiles(want *l7.ServerTLS) (material, error) {
	var m material
	for _, f := range want.Files {
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return m, fmt.Errorf("certificate in %s: %w", f.Certificate, err)
		}
		m.certificates = append(m.certificates, &pair)
	}
	if want.CAFile == "" {
		return m, nil
	}
	trusted, err := os.ReadFile(want.CAFile)
	if err != nil {
		return m, fmt.Errorf("authorities of clients: %w", err)
	}
	var revoked []byte
	if want.CRLFile != "" {
		if revoked, err = os.ReadFile(want.CRLFile); err != nil {
			return m, fmt.Errorf("revoked certificates of clients: %w", err)
		}
	}
	if m.authorities, err = l7.ParseAuthorities(trusted, revoked); err != nil {
		return m, fmt.Errorf("authorities of clients in %s: %w", want.CAFile, err)
	}
	return m, nil
}

// configure makes the configuration of crypto/tls.
func (t *terminator) configure(m material, now func() time.Time) *tls.Config {
	want := t.want
	config := &tls.Config{
		MinVersion: max(want.MinVersion, tls.VersionTLS10), MaxVersion: want.MaxVersion, NextProtos: want.ALPN,
		CipherSuites: want.CipherSuites, Time: now,
	}
	if want.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS12
	}
	if len(config.CipherSuites) == 0 {
		config.CipherSuites = secureCiphers()
	}
	for _, c := range m.certificates {
		config.Certificates = append(config.Certificates, *c)
	}
	if !want.Validates {
		return config
	}
	// The chain is verified below, on resumption too.
	config.ClientAuth = tls.RequestClientCert
	if want.RequireClient {
		config.ClientAuth = tls.RequireAnyClientCert
	}
	roots, revoked := (*x509.CertPool)(nil), []*x509.RevocationList(nil)
	if m.authorities != nil {
		roots, revoked = m.authorities.Pool, m.authorities.Revoked
	} else {
		roots = m.own.Roots
	}
	config.ClientCAs = roots
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return nil // it was not required
		}
		return verifyClient(state.PeerCertificates, want, roots, revoked, now())
	}
	return config
}

// verifyClient checks the certificates that a client has sent.
func verifyClient(sent []*x509.Certificate, want *l7.ServerTLS, roots *x509.CertPool, revoked []*x509.RevocationList, now time.Time) error {
	leaf, intermediates := sent[0], x509.NewCertPool()
	for _, c := range sent[1:] {
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	if len(revoked) > 0 && !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return upstream.Unrevoked(chain, revoked, now) }) {
		return errors.New("the client's certificate, or an authority over it, is revoked, or there is no list that says it is not")
	}
	if len(want.PinnedCertificates)+len(want.PinnedKeys) > 0 &&
		!slices.Contains(want.PinnedCertificates, sha256.Sum256(leaf.Raw)) && !slices.Contains(want.PinnedKeys, sha256.Sum256(leaf.RawSubjectPublicKeyInfo)) {
		return errors.New("the client's certificate is none of those that are pinned")
	}
	if len(want.PeerSANs) > 0 && !upstream.MatchesCertificate(want.PeerSANs, leaf) {
		return errors.New("the client's certificate has none of the names that the listener takes")
	}
	return nil
}
