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
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

var web = spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}

// cluster is what the node authorizer knows: a ztunnel on node-1, and who else runs there.
type cluster struct{}

func (cluster) Pod(namespace, name string) (ca.Pod, bool) {
	pods := map[string]ca.Pod{
		"istio-system/ztunnel-1": {UID: "uid-1", ServiceAccount: "ztunnel", Node: "node-1"},
		"shop/web-1":             {UID: "uid-w", ServiceAccount: "web", Node: "node-1"},
	}
	p, ok := pods[namespace+"/"+name]
	return p, ok
}

func (cluster) NodeHasServiceAccount(node, namespace, account string) bool {
	return node == "node-1" && namespace == "shop" && account == "web"
}

// door is a CSR service on a real port, over TLS and in plaintext.
type door struct {
	authority     *ca.Authority
	key           *ecdsa.PrivateKey
	secure, plain authv1.IstioCertificateServiceClient
}

func open(t *testing.T, dir string) *ca.Authority {
	t.Helper()
	a, err := ca.Open(t.Context(), dir, ca.Options{TrustDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newDoor(t *testing.T) *door {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &door{authority: open(t, t.TempDir()), key: key}
	metrics, err := ca.NewMetrics(prometheus.NewRegistry(), d.authority)
	if err != nil {
		t.Fatal(err)
	}
	service := &ca.Server{
		Authority: d.authority, Authenticator: ca.Authenticators{ca.ClientCertificate{TrustDomains: func() []string { return []string{"cluster.local"} }}, ca.NewJWT(file, issuer, []string{"istio-ca"})},
		Nodes: &ca.NodeAuthorizer{
			ClusterID: "Kubernetes", Trusted: []string{"istio-system/ztunnel"}, Pods: cluster{}, TrustDomains: func() []string { return []string{"cluster.local"} },
		},
		TrustDomain: func() string { return "cluster.local" }, Metrics: metrics, Log: slog.New(slog.DiscardHandler),
	}
	serving := ca.NewServing(d.authority, []string{"istiod.istio-system.svc"}, nil)
	roots := d.authority.Roots()
	d.secure = serve(t, service, credentials.NewTLS(&tls.Config{
		GetCertificate: serving.Get, NextProtos: []string{"h2"}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots,
	}), credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "istiod.istio-system.svc"}))
	d.plain = serve(t, service, insecure.NewCredentials(), insecure.NewCredentials())
	return d
}

func serve(t *testing.T, service *ca.Server, server, client credentials.TransportCredentials) authv1.IstioCertificateServiceClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(server))
	authv1.RegisterIstioCertificateServiceServer(s, service)
	go s.Serve(listener)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(client))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return authv1.NewIstioCertificateServiceClient(conn)
}

// token is a node proxy's, changed by edit.
func (d *door) token(t *testing.T, edit func(map[string]any)) string {
	t.Helper()
	claims := map[string]any{
		"iss": issuer, "aud": []string{"istio-ca"}, "sub": "system:serviceaccount:istio-system:ztunnel",
		"exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "istio-system", "pod": map[string]any{"name": "ztunnel-1", "uid": "uid-1"}, "serviceaccount": map[string]any{"name": "ztunnel"},
		},
	}
	if edit != nil {
		edit(claims)
	}
	return sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: d.key, KeyID: "k"}}, claims)
}

func sign(t *testing.T, key jose.SigningKey, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ask sends one request and returns the code of the answer.
func ask(t *testing.T, client authv1.IstioCertificateServiceClient, token, clusterID, impersonate string, edit func(*authv1.IstioCertificateRequest)) ([]string, error) {
	t.Helper()
	csr, key, err := certs.NewCSR(spiffe.ID{TrustDomain: "evil", Namespace: "x", ServiceAccount: "y"}) // names in it do not count
	if err != nil {
		t.Fatal(err)
	}
	request := &authv1.IstioCertificateRequest{Csr: string(csr), ValidityDuration: 3600}
	if impersonate != "" {
		request.Metadata, err = structpb.NewStruct(map[string]any{"ImpersonatedIdentity": impersonate})
		if err != nil {
			t.Fatal(err)
		}
	}
	if edit != nil {
		edit(request)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	if clusterID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", clusterID)
	}
	response, err := client.CreateCertificate(ctx, request)
	if err != nil {
		return nil, err
	}
	if impersonate != "" {
		id, _ := spiffe.Parse(impersonate)
		if _, err := certs.FromChain(id, key, response.GetCertChain()); err != nil {
			t.Errorf("the answer is not usable: %v", err)
		}
	}
	return response.GetCertChain(), nil
}

func TestNodeProxyGetsItsWorkloadsCertificates(t *testing.T) {
	d := newDoor(t)
	chain, err := ask(t, d.secure, d.token(t, nil), "Kubernetes", web.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(chain[0]))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	if len(chain) != 2 || !strings.HasSuffix(chain[0], "\n\n") || len(leaf.URIs) != 1 || lifetime < 59*time.Minute || lifetime > 63*time.Minute ||
		leaf.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || leaf.Subject.String() != "" {
		t.Errorf("chain of %d, leaf %+v valid for %s", len(chain), leaf.URIs, lifetime)
	}
	for _, e := range leaf.Extensions {
		if e.Id.String() == "2.5.29.17" && !e.Critical {
			t.Error("the name is not critical although the subject is empty")
		}
	}
	if _, err := ask(t, d.secure, d.token(t, nil), "", "", nil); err != nil {
		t.Errorf("its own certificate: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	d := newDoor(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := d.token(t, nil)
	payload := map[string]any{"iss": issuer, "aud": "istio-ca", "sub": "system:serviceaccount:istio-system:ztunnel", "exp": time.Now().Add(time.Hour).Unix()}
	pod := func(key, value string) func(map[string]any) {
		return func(c map[string]any) { c["kubernetes.io"].(map[string]any)["pod"].(map[string]any)[key] = value }
	}
	set := func(key string, value any) string { return d.token(t, func(c map[string]any) { c[key] = value }) }
	const noCaller, noImpersonation = "request authenticate failure", "request impersonation authentication failure"
	for name, tt := range map[string]struct {
		token, cluster, impersonate string
		edit                        func(*authv1.IstioCertificateRequest)
		plain                       bool
		code                        codes.Code
		message                     string
	}{
		"no token":                {"", "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"plaintext":               {good, "Kubernetes", web.String(), nil, true, codes.Unauthenticated, noCaller},
		"garbage":                 {"abc", "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"expired":                 {set("exp", time.Now().Add(-time.Minute).Unix()), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"without an end":          {set("exp", nil), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"not yet valid":           {set("nbf", time.Now().Add(time.Hour).Unix()), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"other audience":          {set("aud", "api"), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"other issuer":            {set("iss", "https://evil"), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"no service account":      {set("sub", "system:node:n"), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"subject unlike claims":   {set("sub", "system:serviceaccount:shop:web"), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"other key":               {sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: other, KeyID: "k"}}, payload), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"symmetric algorithm":     {sign(t, jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, payload), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"algorithm none":          {"eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"payload exchanged":       {strings.Join([]string{strings.Split(good, ".")[0], strings.Split(set("jti", "x"), ".")[1], strings.Split(good, ".")[2]}, "."), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noCaller},
		"account not on the node": {good, "Kubernetes", "spiffe://cluster.local/ns/shop/sa/db", nil, false, codes.Unauthenticated, noImpersonation},
		"other trust domain":      {good, "Kubernetes", "spiffe://elsewhere/ns/shop/sa/web", nil, false, codes.Unauthenticated, noImpersonation},
		"no SPIFFE ID":            {good, "Kubernetes", "web", nil, false, codes.Unauthenticated, noImpersonation},
		"no cluster":              {good, "", web.String(), nil, false, codes.Unauthenticated, noImpersonation},
		"unknown cluster":         {good, "other", web.String(), nil, false, codes.Unauthenticated, noImpersonation},
		"pod of another UID":      {d.token(t, pod("uid", "uid-0")), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noImpersonation},
		"unknown pod":             {d.token(t, pod("name", "ztunnel-2")), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noImpersonation},
		"token without a pod":     {set("kubernetes.io", map[string]any{}), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noImpersonation},
		"account not trusted": {d.token(t, func(c map[string]any) {
			c["sub"] = "system:serviceaccount:shop:web"
			c["kubernetes.io"] = map[string]any{"namespace": "shop", "pod": map[string]any{"name": "web-1", "uid": "uid-w"}}
		}), "Kubernetes", web.String(), nil, false, codes.Unauthenticated, noImpersonation},
		"no request": {good, "Kubernetes", web.String(), func(r *authv1.IstioCertificateRequest) { r.Csr = "x" }, false, codes.InvalidArgument, "CSR signing error"},
		"signature broken": {good, "Kubernetes", web.String(), func(r *authv1.IstioCertificateRequest) {
			block, _ := pem.Decode([]byte(r.Csr))
			block.Bytes[len(block.Bytes)-1] ^= 1
			r.Csr = string(pem.EncodeToMemory(block))
		}, false, codes.InvalidArgument, "CSR signing error"},
		"too long": {good, "Kubernetes", web.String(), func(r *authv1.IstioCertificateRequest) { r.ValidityDuration = 91 * 86400 }, false, codes.InvalidArgument, "CSR signing error"},
	} {
		t.Run(name, func(t *testing.T) {
			client := d.secure
			if tt.plain {
				client = d.plain
			}
			_, err := ask(t, client, tt.token, tt.cluster, tt.impersonate, tt.edit)
			if status.Code(err) != tt.code || !strings.Contains(status.Convert(err).Message(), tt.message) {
				t.Errorf("%v, want %s %s", err, tt.code, tt.message)
			}
		})
	}
}

func TestSelfSignedRootIsKept(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir).RootPEM()
	if second := open(t, dir).RootPEM(); string(first) != string(second) {
		t.Error("another root after a restart")
	}
	info, err := os.Stat(filepath.Join(dir, "ca-key.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
	// Two control planes that start together agree on one root.
	fresh := t.TempDir()
	var wg sync.WaitGroup
	roots := make([]string, 8)
	for i := range roots {
		wg.Go(func() {
			a, err := ca.Open(t.Context(), fresh, ca.Options{TrustDomain: "cluster.local"})
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = string(a.RootPEM())
		})
	}
	wg.Wait()
	for _, r := range roots {
		if r != roots[0] {
			t.Fatal("two roots in one directory")
		}
	}
}

func TestRootIsReplacedBeforeItsEnd(t *testing.T) {
	dir := t.TempDir()
	old := open(t, dir).RootPEM()
	later := func() time.Time { return time.Now().Add(9 * 365 * 24 * time.Hour) }
	a, err := ca.Open(t.Context(), dir, ca.Options{TrustDomain: "cluster.local", Now: later})
	if err != nil {
		t.Fatal(err)
	}
	bundle := string(a.RootPEM())
	if strings.Count(bundle, "BEGIN") != 2 || !strings.Contains(bundle, strings.TrimSpace(string(old))) {
		t.Errorf("after the rotation the bundle is %q", bundle)
	}
	end, _ := a.Expiry()
	if end.Before(later().Add(9 * 365 * 24 * time.Hour)) {
		t.Errorf("the new root ends on %s", end)
	}
}

// intermediate makes a root and a CA below it, as files of a plugged-in authority.
func intermediate(t *testing.T, dir string) {
	t.Helper()
	make := func(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(2 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	root, rootKey, rootPEM := make("root", nil, nil)
	_, key, certPEM := make("intermediate", root, rootKey)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"ca-cert.pem": certPEM, "cert-chain.pem": certPEM, "root-cert.pem": rootPEM,
		"ca-key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPluggedInAuthority(t *testing.T) {
	dir := t.TempDir()
	intermediate(t, dir)
	a := open(t, dir)
	csr, key, err := certs.NewCSR(web)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Sign(csr, web, 24*time.Hour)
	if err != nil || len(chain) != 3 {
		t.Fatalf("chain of %d, %v", len(chain), err)
	}
	w, err := certs.FromChain(web, key, chain)
	if err != nil {
		t.Fatal(err)
	}
	if w.NotAfter().After(time.Now().Add(2 * time.Hour)) {
		t.Error("the certificate outlives its signer")
	}

	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { a.Follow(ctx, 5*time.Millisecond, nil) })
	defer func() { cancel(); following.Wait() }()
	before := string(a.RootPEM())
	if err := os.WriteFile(filepath.Join(dir, "ca-key.pem"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(csr, web, 0); err != nil || string(a.RootPEM()) != before {
		t.Errorf("broken files took the last good material away: %v", err)
	}
	changed := a.Changed()
	intermediate(t, dir)
	wait.Until(t, time.Minute, "replaced files are taken", func() bool { return string(a.RootPEM()) != before }, nil)
	<-changed
}

func TestPlugInIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"no key":  func(dir string) error { return os.Remove(filepath.Join(dir, "ca-key.pem")) },
		"no root": func(dir string) error { return os.Remove(filepath.Join(dir, "root-cert.pem")) },
		"key of others": func(dir string) error {
			other := t.TempDir()
			intermediate(t, other)
			return os.Rename(filepath.Join(other, "ca-key.pem"), filepath.Join(dir, "ca-key.pem"))
		},
		"root of others": func(dir string) error {
			other := t.TempDir()
			intermediate(t, other)
			return os.Rename(filepath.Join(other, "root-cert.pem"), filepath.Join(dir, "root-cert.pem"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			intermediate(t, dir)
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := ca.Open(t.Context(), dir, ca.Options{}); err == nil || strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzSign(f *testing.F) {
	a, err := ca.Open(f.Context(), "", ca.Options{TrustDomain: "cluster.local"})
	if err != nil {
		f.Fatal(err)
	}
	csr, _, err := certs.NewCSR(web)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr, int64(3600))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"), int64(-1))
	f.Fuzz(func(t *testing.T, csr []byte, seconds int64) {
		chain, err := a.Sign(csr, web, time.Duration(seconds))
		if err == nil && len(chain) < 2 {
			t.Error("a chain without roots")
		}
	})
}
