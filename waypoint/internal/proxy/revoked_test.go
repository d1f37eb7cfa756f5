package proxy

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// TestRevokedClients: who configures lists of revoked certificates wants each certificate to be on none, of a list that counts today.
func TestRevokedClients(t *testing.T) {
	ca, foreign := newEdgeCA(t), newEdgeCA(t)
	text, _ := ca.issue("alice.example.com")
	block, _ := pem.Decode(text)
	client, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	list := func(by *edgeCA, until time.Duration, serials ...*big.Int) *x509.RevocationList {
		t.Helper()
		template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: now.Add(until)}
		for _, s := range serials {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: now.Add(-time.Hour)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, by.cert, by.key)
		if err != nil {
			t.Fatal(err)
		}
		out, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	other := big.NewInt(4711)
	for name, tt := range map[string]struct {
		lists []*x509.RevocationList
		ok    bool
	}{
		"no lists":                       {nil, true},
		"a list with others":             {[]*x509.RevocationList{list(ca, time.Hour, other)}, true},
		"a list with it":                 {[]*x509.RevocationList{list(ca, time.Hour, other, client.SerialNumber)}, false},
		"a list of another authority":    {[]*x509.RevocationList{list(foreign, time.Hour)}, false},
		"a list that has expired":        {[]*x509.RevocationList{list(ca, -time.Hour, other)}, false},
		"a new list beside":              {[]*x509.RevocationList{list(ca, -time.Hour, other), list(ca, time.Hour)}, true},
		"revoked by the one that is old": {[]*x509.RevocationList{list(ca, -time.Hour, client.SerialNumber), list(ca, time.Hour)}, false},
	} {
		err := verifyClient([]*x509.Certificate{client}, &l7.ServerTLS{Validates: true}, roots, tt.lists, now)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
