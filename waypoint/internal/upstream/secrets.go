package upstream

import (
	"errors"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
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

// trusted collects whose certificates count where a cluster verifies its servers.
func (m *Manager) trusted(t *l7.ClientTLS, authorities *l7.Authorities) (trust.Peers, error) {
	lists := t.Revocation.Lists
	if t.CAFile != "" || t.Revocation.File != "" {
		read, err := m.files.Read(trust.Names{Authorities: t.CAFile, Lists: t.Revocation.File, LeafOnly: t.Revocation.LeafOnly}, time.Now())
		if err != nil {
			return trust.Peers{}, err
		}
		if t.CAFile != "" {
			authorities = read
		}
		if read.Revoked != nil {
			lists = read.Revoked
		}
	}
	if authorities == nil {
		return trust.Peers{}, errors.New("nobody vouches for the server: the cluster names no authorities")
	}
	return trust.Of(authorities, lists, t.Revocation.LeafOnly), nil
}
