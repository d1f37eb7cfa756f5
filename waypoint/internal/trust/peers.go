// Package trust says whose certificates count: which authorities vouch for those of peers, and what these have revoked.
package trust

import (
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/crl"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Peers is by what the certificates of peers are judged. It is immutable, and compared by identity of its parts.
type Peers struct {
	roots    *x509.CertPool
	certs    []*x509.Certificate // of roots
	revoked  *crl.Lists          // nil where no lists are asked for
	leafOnly bool
}

// Of makes the rules of authorities: the lists that came with them, or else others, which may be nil.
func Of(a *l7.Authorities, others *crl.Lists, leafOnly bool) Peers {
	p := Peers{roots: a.Pool, certs: a.Certs, revoked: a.Revoked, leafOnly: leafOnly || a.LeafOnly}
	if p.revoked == nil {
		p.revoked = others
	}
	return p
}

// Verify returns an error unless an authority vouches for the certificates that a peer has sent (leaf first), and with lists in force none of
// them is revoked, as [crl.Lists.Vouch] has it. It is to be called for resumed sessions too: what they began with may be revoked since.
func (p Peers) Verify(sent []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	intermediates := x509.NewCertPool()
	for _, c := range sent[1:] {
		intermediates.AddCert(c)
	}
	chains, err := sent[0].Verify(x509.VerifyOptions{
		Roots: p.roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return err
	}
	if p.revoked.Len() == 0 {
		return nil
	}
	// One good way is enough, as it is for signatures.
	var first error
	if slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		err := p.revoked.Vouch(chain, p.certs, now, p.leafOnly)
		if first == nil {
			first = err
		}
		return err == nil
	}) {
		return nil
	}
	return first
}

// Refused is whether an error of Verify, or of a handshake, is about revocation.
func Refused(err error) bool { return errors.Is(err, crl.ErrRevoked) || errors.Is(err, crl.ErrNoList) }
