package crl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrRevoked says that a certificate must not be believed any more.
var ErrRevoked = errors.New("certificate revoked")

// ErrNoList says that nobody vouches for a certificate: there is no list of its issuer that counts now.
var ErrNoList = errors.New("no revocation list says that the certificate is good")

// Revoked returns an ErrRevoked if a certificate of the chain (leaf first) is revoked by its issuer, who is the next one of the chain or one
// of the roots. Lists that others signed do not count. It is the rule of the mesh.
func (l *Lists) Revoked(chain, roots []*x509.Certificate) error {
	if l.Len() == 0 {
		return nil
	}
	for i, cert := range chain {
		for _, one := range l.all {
			if !bytes.Equal(one.parsed.RawIssuer, cert.RawIssuer) || !one.has(cert) {
				continue
			}
			if slices.ContainsFunc(chain[i+1:], one.by) || slices.ContainsFunc(roots, one.by) {
				return revoked(cert)
			}
		}
	}
	return nil
}

func revoked(cert *x509.Certificate) error {
	return fmt.Errorf("%w: serial number %s of %q, by %q", ErrRevoked, cert.SerialNumber, cert.Subject, cert.Issuer)
}

// Vouch returns an error unless there is for each certificate of a verified chain (leaf first) a list of its issuer that counts now and does
// not have it: an ErrRevoked, or an ErrNoList. It is Envoy's rule. The trusted certificates complete a chain that ends before a
// root; one that does not end at a root cannot be judged, and is refused. leafOnly asks it of the first certificate only. What a list
// revokes that counts no more stays revoked.
func (l *Lists) Vouch(chain, trusted []*x509.Certificate, now time.Time, leafOnly bool) error {
	chain = complete(chain, trusted)
	for i, cert := range chain {
		issuer := cert // a root revokes for itself
		switch {
		case i+1 < len(chain):
			issuer = chain[i+1]
		case !selfIssued(cert):
			return fmt.Errorf("%w: %q is trusted, but its issuer %q is not, whose list is needed for it", ErrNoList, cert.Subject, cert.Issuer)
		}
		if err := l.vouchOne(cert, issuer, now); err != nil {
			return err
		}
		if leafOnly {
			break
		}
	}
	return nil
}

// complete adds the issuers above the last certificate of a chain, as far as they are trusted.
func complete(chain, trusted []*x509.Certificate) []*x509.Certificate {
	if len(chain) == 0 {
		return nil
	}
	out := slices.Clone(chain)
	for {
		last := out[len(out)-1]
		if selfIssued(last) {
			return out
		}
		at := slices.IndexFunc(trusted, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && !slices.ContainsFunc(out, c.Equal) && last.CheckSignatureFrom(c) == nil
		})
		if at < 0 {
			return out
		}
		out = append(out, trusted[at])
	}
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

func (l *Lists) vouchOne(cert, issuer *x509.Certificate, now time.Time) error {
	why := "there is none"
	found := false
	for i := range l.Len() {
		one := l.all[i]
		if !bytes.Equal(one.parsed.RawIssuer, cert.RawIssuer) {
			continue
		}
		if !one.by(issuer) {
			why = "what there is has another signature"
			continue
		}
		if one.has(cert) {
			return revoked(cert)
		}
		switch late := one.untimely(now); {
		case !one.scope.covers(cert):
			why = "what there is is about other certificates"
		case late != "":
			why = "what there is " + late
		default:
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%w: a list of %q is needed for %q, and %s", ErrNoList, cert.Issuer, cert.Subject, why)
	}
	return nil
}
