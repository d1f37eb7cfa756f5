package upstream

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// secrets finds what a cluster takes by SDS from the control plane. Without it no connection is made: nothing else is presented or
// trusted in its place.
func (m *Manager) secrets(t *l7.ClientTLS) (l7.Secret, error) {
	out := l7.Secret{Authorities: t.Trusted}
	all := m.cfg.Load().Secrets
	if name := t.Certificate; name != "" && name != l7.OwnCertificate {
		if s := all[name]; s != nil {
			out.Certificate = s.Certificate
		}
		if out.Certificate == nil {
			return out, fmt.Errorf("the secret %s is not there", name)
		}
	}
	if name := t.Validation; name != "" && name != l7.OwnRoots {
		if s := all[name]; s != nil {
			out.Authorities = s.Authorities
		}
		if out.Authorities == nil {
			return out, fmt.Errorf("the secret %s is not there", name)
		}
	}
	return out, nil
}

func readAuthorities(t *l7.ClientTLS) (*l7.Authorities, error) {
	trusted, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("trusted authorities: %w", err)
	}
	var revoked []byte
	if t.CRLFile != "" {
		if revoked, err = os.ReadFile(t.CRLFile); err != nil {
			return nil, fmt.Errorf("revoked certificates: %w", err)
		}
	}
	out, err := l7.ParseAuthorities(trusted, revoked)
	if err != nil {
		return nil, fmt.Errorf("trusted authorities in %s: %w", t.CAFile, err)
	}
	return out, nil
}

// Unrevoked reports whether there is a list for each certificate of a chain that says nothing of it. As with Envoy, who configures one
// list needs one of each authority, and one that has not expired: what an older one revokes stays revoked.
func Unrevoked(chain []*x509.Certificate, lists []*x509.RevocationList, now time.Time) bool {
	for i, c := range chain[:len(chain)-1] {
		issuer, found := chain[i+1], false
		for _, list := range lists {
			if list.CheckSignatureFrom(issuer) != nil {
				continue
			}
			found = found || !now.Before(list.ThisUpdate) && (list.NextUpdate.IsZero() || now.Before(list.NextUpdate))
			for _, r := range list.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(c.SerialNumber) == 0 {
					return false
				}
			}
		}
		if !found {
			return false
		}
	}
	return true
}
