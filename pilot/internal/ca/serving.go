package ca

import (
	"crypto/tls"
	"sync"
	"time"
)

// servingLifetime of the control plane's own certificate; it is renewed at half of it.
const servingLifetime = 24 * time.Hour

// Serving keeps the control plane's own certificate current. Safe for concurrent use.
type Serving struct {
	authority *Authority
	names     []string

	mu   sync.Mutex // guards what follows
	cert *tls.Certificate
	by   *material
}

// NewServing serves under the given DNS names.
func NewServing(authority *Authority, names []string) *Serving {
	return &Serving{authority: authority, names: names}
}

// Get is for tls.Config.GetCertificate.
func (s *Serving) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, signer := s.authority.options.Now(), s.authority.current.Load()
	if s.cert != nil && s.by == signer && now.Before(s.cert.Leaf.NotAfter.Add(-servingLifetime/2)) {
		return s.cert, nil
	}
	next, err := s.authority.ServingCertificate(s.names, servingLifetime)
	if err != nil {
		return nil, err
	}
	s.cert, s.by = next, signer
	return next, nil
}
