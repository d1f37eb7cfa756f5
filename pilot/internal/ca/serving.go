package ca

import (
	"crypto/tls"
	"slices"
	"strings"
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
	// immutable
	authority *Authority
	names     []string
	tagged    func(name string) bool

	mu    sync.Mutex // guards what follows
	cert  *tls.Certificate
	tags  []string // names beyond the usual ones that the certificate has
	by    *material
	until time.Time // when it is renewed
}

// NewServing serves under the given DNS names, and under those that tagged reports to be the control plane's too, once a client asks for
// one: names come and go with revision tags. It may be nil.
func NewServing(authority *Authority, names []string, tagged func(name string) bool) *Serving {
	if tagged == nil {
		tagged = func(string) bool { return false }
	}
	return &Serving{authority: authority, names: names, tagged: tagged}
}

// Get is for tls.Config.GetCertificate.
func (s *Serving) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, signer := s.authority.options.Now(), s.authority.current.Load()
	asked := strings.ToLower(hello.ServerName)
	added := asked != "" && !slices.Contains(s.names, asked) && !slices.Contains(s.tags, asked) && s.tagged(asked)
	if s.cert != nil && s.by == signer && now.Before(s.until) && !added {
		return s.cert, nil
	}
	tags := slices.DeleteFunc(slices.Clone(s.tags), func(name string) bool { return !s.tagged(name) })
	if added {
		tags = append(tags, asked)
	}
	next, err := s.authority.ServingCertificate(slices.Concat(s.names, tags), servingLifetime)
	if err != nil {
		return nil, err
	}
	s.cert, s.tags, s.by, s.until = next, tags, signer, now.Add(max(next.Leaf.NotAfter.Sub(now)/2, servingRenewal))
	return next, nil
}
