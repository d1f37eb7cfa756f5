package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	mathbig "math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	pilot "github.com/isthmus-mesh/isthmus/pilot/app"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
	xdsclient "github.com/isthmus-mesh/isthmus/pkg/xds/client"
)

const behindWaypoint = `apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: reviews-wp, namespace: default}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
status: {addresses: [{type: IPAddress, value: 10.96.0.50}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default, labels: {istio.io/use-waypoint: reviews-wp}}
spec: {clusterIP: 10.96.0.7, selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: 9080}]}
`

// controlPlane is a real one, for scripts: its ports, and who may ask.
type controlPlane struct {
	addresses pilot.Addresses
	ca        string // directory with the certificate authority
	key       *ecdsa.PrivateKey
	roots     []byte
}

// segment is a part of a token.
func segment(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config, state := t.TempDir(), t.TempDir()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	coordinate := base64.RawURLEncoding.EncodeToString
	keys := fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","kid":"k","use":"sig","x":%q,"y":%q}]}`, coordinate(point[1:33]), coordinate(point[33:]))
	for path, text := range map[string]string{filepath.Join(config, "mesh.yaml"): behindWaypoint, filepath.Join(state, "jwks.json"): keys} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := pilot.Default()
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.SecureGRPCAddr, cfg.MonitoringAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.ConfigDir, cfg.CADir, cfg.JWKSFile, cfg.RootCertOut = config, filepath.Join(state, "ca"), filepath.Join(state, "jwks.json"), filepath.Join(state, "root-cert.pem")
	cfg.PodName, cfg.Build.Version = "istiod-real", "1.2.3"
	cfg.Log = slog.New(slog.DiscardHandler)
	started := make(chan pilot.Addresses, 1)
	cfg.Started = func(a pilot.Addresses) { started <- a }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pilot.Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the control plane: %v", err)
		}
	})
	select {
	case a := <-started:
		roots, err := os.ReadFile(cfg.RootCertOut)
		if err != nil {
			t.Fatal(err)
		}
		return &controlPlane{addresses: a, ca: cfg.CADir, key: key, roots: roots}
	case err := <-ended:
		ended <- nil
		t.Fatalf("the control plane: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the control plane does not start")
	}
	return nil
}

// token is one of service account default in a namespace.
func (c *controlPlane) token(t *testing.T, namespace string) string {
	t.Helper()
	signed := segment(t, map[string]any{"alg": "ES256", "kid": "k", "typ": "JWT"}) + "." + segment(t, map[string]any{
		"iss": pilot.Default().JWTIssuer, "aud": []string{"istio-ca"}, "sub": "system:serviceaccount:" + namespace + ":default", "exp": time.Now().Add(time.Hour).Unix(),
	})
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// certificate writes what --cert-dir takes.
func (c *controlPlane) certificate(t *testing.T, dir, namespace string) {
	t.Helper()
	block := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(c.ca, name))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := pem.Decode(text)
		return b.Bytes
	}
	issuer, err := x509.ParseCertificate(block("ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var issuerKey any
	if issuerKey, err = x509.ParsePKCS8PrivateKey(block("ca-key.pem")); err != nil {
		if issuerKey, err = x509.ParseECPrivateKey(block("ca-key.pem")); err != nil {
			if issuerKey, err = x509.ParsePKCS1PrivateKey(block("ca-key.pem")); err != nil {
				t.Fatal(err)
			}
		}
	}
	template := &x509.Certificate{
		SerialNumber: mathbig.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/" + namespace + "/sa/default"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &c.key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"cert-chain.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"key.pem":        pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), "root-cert.pem": c.roots,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// takes is a proxy that takes all.
type takes struct{}

func (takes) Apply([]xdsclient.Resource, []string) []xdsclient.Rejected { return nil }

// connect connects a waypoint that has everything, and returns what it is to have, once it has all of it.
func (c *controlPlane) connect(t *testing.T) string {
	t.Helper()
	about, err := structpb.NewStruct(map[string]any{
		"NAMESPACE": "default", "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.2.2",
		"LABELS": map[string]any{"gateway.networking.k8s.io/gateway-name": "reviews-wp"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const envoy = "type.googleapis.com/envoy.config."
	proxy := xdsclient.New(xdsclient.Config{
		Target: c.addresses.GRPC.String(), Node: &corev3.Node{Id: "waypoint~10.244.1.9~reviews-wp-1.default~default.svc.cluster.local", Metadata: about},
		Types: []xdsclient.Watch{{TypeURL: envoy + "cluster.v3.Cluster", Handler: takes{}}, {TypeURL: envoy + "listener.v3.Listener", Handler: takes{}}, {TypeURL: envoy + "route.v3.RouteConfiguration", Handler: takes{}}},
		Dial: func() ([]grpc.DialOption, error) {
			return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = proxy.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	var text string
	wait.Until(t, time.Minute, "the proxy has everything", func() bool {
		if strings.Count(c.page(t, "syncz"), `"acked"`) != 3 {
			return false
		}
		text = c.page(t, "config_dump?proxyID=reviews-wp-1.default")
		return strings.Contains(text, "inbound-vip|9080|http|reviews") && strings.Contains(text, `"connect_terminate"`)
	}, func() string { return c.page(t, "syncz") })
	return text
}

func (c *controlPlane) page(t *testing.T, name string) string {
	t.Helper()
	r, err := http.Get("http://" + c.addresses.Monitoring.String() + "/debug/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tokens is the part of an API server that gives tokens, and publishes the roots.
func (c *controlPlane) tokens(t *testing.T) http.Handler {
	t.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/namespaces/istio-system/serviceaccounts/default/token", "/api/v1/namespaces/shop/serviceaccounts/default/token":
			answer(w, map[string]any{"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "status": map[string]any{"token": c.token(t, strings.Split(r.URL.Path, "/")[4])}})
		case "/api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert", "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert":
			answer(w, map[string]any{"kind": "ConfigMap", "apiVersion": "v1", "metadata": map[string]any{"name": "istio-ca-root-cert"}, "data": map[string]any{"root-cert.pem": string(c.roots)}})
		default:
			status(w, http.StatusForbidden, "Forbidden")
		}
	})
}

// TestXDS runs testdata/xds/*.txt: a real control plane is asked by xDS.
func TestXDS(t *testing.T) {
	t.Parallel()
	c := startControlPlane(t)
	dump := c.connect(t)
	testscript.Run(t, testscript.Params{Dir: "testdata/xds", Setup: func(env *testscript.Env) error {
		if err := os.WriteFile(filepath.Join(env.WorkDir, "synced.json"), []byte(dump), 0o600); err != nil {
			return err
		}
		changed := strings.Replace(dump, "inbound-vip|9080|http|reviews", "inbound-vip|9080|http|changed", 1)
		if err := os.WriteFile(filepath.Join(env.WorkDir, "changed.json"), []byte(changed), 0o600); err != nil {
			return err
		}
		c.certificate(t, filepath.Join(env.WorkDir, "certs"), "istio-system")
		c.certificate(t, filepath.Join(env.WorkDir, "others"), "shop")
		env.Setenv("TOKENS", serve(t, c.tokens(t), env.WorkDir))
		env.Setenv("KUBECONFIG", filepath.Join(env.WorkDir, "none"))
		env.Setenv("HOME", env.WorkDir)
		env.Setenv("PLAIN", c.addresses.GRPC.String())
		env.Setenv("SECURE", c.addresses.SecureGRPC.String())
		return nil
	}})
}
