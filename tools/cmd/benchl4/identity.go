package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
)

// identity is a workload's certificate and key in a form that can be passed to a child.
type identity struct {
	URI   string
	Key   []byte // PKCS 8
	Chain []string
}

// newIdentities makes the identities of both ends, issued by a CA that is forgotten at once.
func newIdentities() (near, far identity, err error) {
	ca, err := testkit.NewCA()
	if err != nil {
		return near, far, err
	}
	if near, err = issue(ca, "near"); err != nil {
		return near, far, err
	}
	far, err = issue(ca, "far")
	return near, far, err
}

func issue(ca *testkit.CA, account string) (identity, error) {
	id := spiffe.ID{TrustDomain: "cluster.local", Namespace: "bench", ServiceAccount: account}
	csr, key, err := certs.NewCSR(id)
	if err != nil {
		return identity{}, err
	}
	out := identity{URI: id.String()}
	if out.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return identity{}, err
	}
	out.Chain, err = ca.Chain(csr, id, time.Hour)
	return out, err
}

// workload is the identity as proxies use it.
func (i identity) workload() (*certs.Workload, error) {
	id, err := spiffe.Parse(i.URI)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(i.Key)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", i.URI, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("a key that cannot sign")
	}
	return certs.FromChain(id, signer, i.Chain)
}
