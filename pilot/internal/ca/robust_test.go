package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
)

// A control plane that died between the files of a rotation is continued by the next one.
func TestRotationIsCompletedAfterACrash(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	open(t, dir)
	open(t, other)
	next := map[string][]byte{}
	for _, name := range []string{"ca-key.pem", "ca-cert.pem"} {
		data, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		next[name] = data
	}
	record, err := json.Marshal(next)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{".intent.json": record, "ca-key.pem": next["ca-key.pem"]} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	if got, err := os.ReadFile(filepath.Join(dir, "ca-cert.pem")); err != nil || string(got) != string(next["ca-cert.pem"]) {
		t.Errorf("the certificate is not the one of the key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".intent.json")); !os.IsNotExist(err) {
		t.Errorf("the record is still there: %v", err)
	}
}

// Several that find the root near its end at the same time end up with one.
func TestConcurrentRotation(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	later := func() time.Time { return time.Now().Add(9 * 365 * 24 * time.Hour) }
	roots := make(chan string, 8)
	for range cap(roots) {
		go func() {
			a, err := ca.Open(context.Background(), dir, ca.Options{TrustDomain: "cluster.local", Now: later})
			if err != nil {
				t.Error(err)
				roots <- ""
				return
			}
			roots <- string(a.RootPEM())
		}()
	}
	first := <-roots
	for range cap(roots) - 1 {
		if next := <-roots; next != first {
			t.Error("two authorities have different roots")
		}
	}
}

func TestTheNameIsCriticalWhateverTheSubject(t *testing.T) {
	a := open(t, t.TempDir())
	for _, name := range []string{"", "web"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := a.Sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), web, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(chain[0]))
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != web.String() {
			t.Errorf("common name %q: %v", name, leaf.URIs)
		}
		for _, e := range leaf.Extensions {
			if e.Id.String() == "2.5.29.17" && !e.Critical {
				t.Errorf("common name %q: the alternative name is not critical", name)
			}
		}
	}
}

// A key file that is half written, or gone, does not turn away those whose keys were read before.
func TestKeysOutliveATornFile(t *testing.T) {
	d := &door{}
	d.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: d.key.Public(), KeyID: "k", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(keys)
	j := ca.NewJWT(file, issuer, []string{"istio-ca"})
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+d.token(t, nil)))
	for _, damage := range []func(){func() {}, func() { write(keys[:len(keys)/2]) }, func() { os.Remove(file) }} {
		damage()
		ca.Reread(j)
		if _, err := j.Authenticate(ctx); err != nil {
			t.Error(err)
		}
	}
}

// A root may vouch for other meshes: their istio-system/ztunnel is not ours.
func TestACertificateOfAnotherMeshIsRefused(t *testing.T) {
	accept := ca.ClientCertificate{TrustDomains: func() []string { return []string{"cluster.local", "old.example"} }}
	for uri, want := range map[string]bool{
		"spiffe://cluster.local/ns/istio-system/sa/ztunnel":   true,
		"spiffe://old.example/ns/istio-system/sa/ztunnel":     true,
		"spiffe://foreign.example/ns/istio-system/sa/ztunnel": false,
	} {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{u}}
		info := credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}
		caller, err := accept.Authenticate(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info}))
		if (err == nil) != want || want && caller.ServiceAccount != "ztunnel" {
			t.Errorf("%s: %+v, %v", uri, caller, err)
		}
	}
}
