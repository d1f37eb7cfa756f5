package ca

import (
	"crypto/tls"
	"sync"
	"time"
)

const (
	// servingLifetime of the control plane's own certificate. It is shorter when the authority's own end is nearer.
	servingLifetime = 24 * time.Hour
	// servingRenewal is how long a certificate is used at least: half of its life otherwise.
	servingRenewal = time.Minute
)

// Serving keeps the control plane's own certificate current. Safe for concurrent use.
type Serving struct {
	authority *Authority
	names     []string

	mu    sync.Mutex // guards what follows
	cert  *tls.Certificate
	by    *material
	until time.Time // when it is renewed
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
	if s.cert != nil && s.by == signer && now.Before(s.until) {
		return s.cert, nil
	}
	next, err := s.authority.ServingCertificate(s.names, servingLifetime)
	if err != nil {
		return nil, err
	}
	s.cert, s.by, s.until = next, signer, now.Add(max(next.Leaf.NotAfter.Sub(now)/2, servingRenewal))
	return next, nil
}
