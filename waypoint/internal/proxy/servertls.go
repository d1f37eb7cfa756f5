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
	"github.com/isthmus-mesh/isthmus/pkg/crl"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
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
	files trust.Files

	mu sync.Mutex // guards of
	of map[*l7.ServerTLS]*terminator
}

// terminator ends TLS with one chain's settings.
type terminator struct {
	want  *l7.ServerTLS
	files *trust.Files

	mu     sync.Mutex // guards the rest
	used   material
	config *tls.Config
	looked time.Time // at files
	stamps []time.Time

	presented []*tls.Certificate // what was read from files
}

// material is what certificates and authorities are in force. It is compared by identity.
type material struct {
	certificates []*tls.Certificate
	authorities  *l7.Authorities
	revoked      *crl.Lists // where the authorities have none with them
	own          *certs.Workload
}

func (m material) equal(o material) bool {
	return slices.Equal(m.certificates, o.certificates) && m.authorities == o.authorities && m.revoked == o.revoked && m.own == o.own
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
		term = &terminator{want: want, files: &t.files}
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
	if len(t.want.Files) > 0 {
		if err := t.readLocked(now()); err != nil {
			return m, err
		}
		m.certificates = append(m.certificates, t.presented...)
	}
	m.revoked = t.want.Revocation.Lists
	if t.want.CAFile != "" || t.want.Revocation.File != "" {
		read, err := t.files.Read(trust.Names{
			Authorities: t.want.CAFile, Lists: t.want.Revocation.File, LeafOnly: t.want.Revocation.LeafOnly,
		}, now())
		if err != nil {
			return m, err
		}
		if t.want.CAFile != "" {
			m.authorities = read
		}
		if read.Revoked != nil {
			m.revoked = read.Revoked
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
	var names []string
	for _, f := range t.want.Files {
		names = append(names, f.Certificate, f.Key)
	}
	stamps := make([]time.Time, len(names))
	for i, name := range names {
		if info, err := os.Stat(name); err == nil {
			stamps[i] = info.ModTime()
		}
	}
	if slices.EqualFunc(stamps, t.stamps, time.Time.Equal) {
		t.looked = now
		return nil
	}
	next, err := readFiles(t.want)
	if err != nil {
		if len(t.presented) > 0 {
			t.looked = now
			return nil
		}
		return err
	}
	t.presented, t.stamps, t.looked = next, stamps, now
	return nil
}

func readFiles(want *l7.ServerTLS) ([]*tls.Certificate, error) {
	var out []*tls.Certificate
	for _, f := range want.Files {
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate in %s: %w", f.Certificate, err)
		}
		out = append(out, &pair)
	}
	return out, nil
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
	authorities := m.authorities
	if authorities == nil {
		authorities = &l7.Authorities{Pool: m.own.Roots, Certs: m.own.RootCerts}
	}
	config.ClientCAs = authorities.Pool
	peers := trust.Of(authorities, m.revoked, want.Revocation.LeafOnly)
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return nil // it was not required
		}
		return verifyClient(state.PeerCertificates, want, peers, now())
	}
	return config
}

// verifyClient checks the certificates that a client has sent.
func verifyClient(sent []*x509.Certificate, want *l7.ServerTLS, peers trust.Peers, now time.Time) error {
	if err := peers.Verify(sent, x509.ExtKeyUsageClientAuth, now); err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	leaf := sent[0]
	if len(want.PinnedCertificates)+len(want.PinnedKeys) > 0 &&
		!slices.Contains(want.PinnedCertificates, sha256.Sum256(leaf.Raw)) && !slices.Contains(want.PinnedKeys, sha256.Sum256(leaf.RawSubjectPublicKeyInfo)) {
		return errors.New("the client's certificate is none of those that are pinned")
	}
	if len(want.PeerSANs) > 0 && !upstream.MatchesCertificate(want.PeerSANs, leaf) {
		return errors.New("the client's certificate has none of the names that the listener takes")
	}
	return nil
}
