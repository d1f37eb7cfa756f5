package main

import (
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
)

const trustDomain = "cluster.local"

// lifetime of certificates outlives a run.
const lifetime = 12 * time.Hour

// account is an identity of the test bed.
func account(name string) spiffe.ID {
	return spiffe.ID{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: name}
}

// issue makes a key and its certificate. The second result is the key in PEM form.
func issue(ca *testkit.CA, id spiffe.ID) (*certs.Workload, string, error) {
	csr, key, err := certs.NewCSR(id)
	if err != nil {
		return nil, "", err
	}
	chain, err := ca.Chain(csr, id, lifetime)
	if err != nil {
		return nil, "", err
	}
	w, err := certs.FromChain(id, key, chain)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return w, encode("PRIVATE KEY", der), err
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
