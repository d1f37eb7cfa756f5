package proxy

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// TestRevokedClients: who configures lists of revoked certificates wants each certificate to be on none, of a list that counts today.
func TestRevokedClients(t *testing.T) {
	ca, foreign := newEdgeCA(t), newEdgeCA(t)
	client, other := ca.named("alice.example.com").Leaf, ca.named("bob.example.com").Leaf
	now := time.Now()
	list := func(by edgeCA, until time.Duration, revoked ...*x509.Certificate) *x509.RevocationList {
		t.Helper()
		text, err := by.Revoke(now.Add(until), revoked...)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		out, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	for name, tt := range map[string]struct {
		lists []*x509.RevocationList
		ok    bool
	}{
		"no lists":                       {nil, true},
		"a list with others":             {[]*x509.RevocationList{list(ca, time.Hour, other)}, true},
		"a list with it":                 {[]*x509.RevocationList{list(ca, time.Hour, other, client)}, false},
		"a list of another authority":    {[]*x509.RevocationList{list(foreign, time.Hour)}, false},
		"a list that has expired":        {[]*x509.RevocationList{list(ca, -time.Minute, other)}, false},
		"a new list beside":              {[]*x509.RevocationList{list(ca, -time.Minute, other), list(ca, time.Hour)}, true},
		"revoked by the one that is old": {[]*x509.RevocationList{list(ca, -time.Minute, client), list(ca, time.Hour)}, false},
	} {
		err := verifyClient([]*x509.Certificate{client}, &l7.ServerTLS{Validates: true}, roots, tt.lists, now)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
