package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// keyMaterialCheck is how often the CA's files are looked at.
const keyMaterialCheck = 5 * time.Second

// pki is the certificate authority, its service, and the control plane's own certificate.
type pki struct {
	cfg       Config
	authority *ca.Authority
	serving   *ca.Serving
	service   *ca.Server
	callers   ca.Authenticator
	log       *slog.Logger
}

func (p *plane) newPKI(ctx context.Context) (*pki, error) {
	cfg, log := p.cfg, telemetry.Scoped(p.cfg.Log, "ca")
	trustDomain := func() string { return p.settings.Load().Proto.GetTrustDomain() }
	authority, err := ca.Open(ctx, cfg.CADir, ca.Options{TrustDomain: trustDomain(), DefaultTTL: cfg.DefaultCertTTL, MaxTTL: cfg.MaxCertTTL, Log: log})
	if err != nil {
		return nil, err
	}
	if cfg.CADir == "" {
		log.Warn("the CA's key lives in memory only: after a restart no certificate issued before is valid; set --caDir")
	}
	metrics, err := ca.NewMetrics(p.metrics, authority)
	if err != nil {
		return nil, err
	}
	trustDomains := func() []string {
		return append([]string{trustDomain()}, p.settings.Load().Proto.GetTrustDomainAliases()...)
	}
	callers := ca.Authenticators{ca.ClientCertificate{TrustDomains: trustDomains}}
	if cfg.JWKSFile != "" {
		callers = append(callers, ca.NewJWT(cfg.JWKSFile, cfg.JWTIssuer, cfg.TokenAudiences))
	} else {
		log.Warn("tokens are refused: there are no keys to verify them with; set --jwksFile")
	}
	nodes := &ca.NodeAuthorizer{
		ClusterID: cfg.ClusterID, Trusted: cfg.TrustedNodeAccounts, Pods: pods{p.registry}, TrustDomains: trustDomains,
	}
	k := &pki{
		cfg: cfg, authority: authority, callers: callers, log: log, serving: ca.NewServing(authority, serverNames(cfg)),
		service: &ca.Server{Authority: authority, Authenticator: callers, Nodes: nodes, TrustDomain: trustDomain, Metrics: metrics, Log: log},
	}
	return k, k.writeRoots()
}

// serverNames are those by which clients know the control plane.
func serverNames(cfg Config) []string {
	hosts := []string{"istiod", "istiod-remote", "istio-pilot"}
	if cfg.Revision != "" && cfg.Revision != "default" {
		hosts = append(hosts, "istiod-"+cfg.Revision)
	}
	var names []string
	for _, host := range hosts {
		names = append(names, host+"."+cfg.Namespace+".svc", host+"."+cfg.Namespace+".svc."+cfg.Domain)
	}
	return append(names, cfg.ServerNames...)
}

// run follows the key material until ctx ends.
func (k *pki) run(ctx context.Context) error {
	following := make(chan struct{})
	go func() {
		defer close(following)
		k.authority.Follow(ctx, keyMaterialCheck, nil)
	}()
	defer func() { <-following }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.authority.Changed():
			if err := k.writeRoots(); err != nil {
				k.log.Error("root certificates not written", "error", err)
			}
		}
	}
}

// writeRoots publishes the roots for the proxies of this machine.
func (k *pki) writeRoots() error {
	if k.cfg.RootCertOut == "" {
		return nil
	}
	roots := k.authority.RootPEM()
	if old, err := os.ReadFile(k.cfg.RootCertOut); err == nil && bytes.Equal(old, roots) {
		return nil
	}
	file, err := os.CreateTemp(filepath.Dir(k.cfg.RootCertOut), ".root-cert-*")
	if err != nil {
		return fmt.Errorf("write root certificates: %w", err)
	}
	_, err = file.Write(roots)
	err = errors.Join(err, file.Chmod(0o644), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), k.cfg.RootCertOut)
	}
	if err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("write root certificates to %s: %w", k.cfg.RootCertOut, err)
	}
	return nil
}

// tlsConfig of the secure port. A client certificate is optional, but must be ours.
func (k *pki) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			clients, err := k.clientRoots()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, GetCertificate: k.certificate,
				ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
			}, nil
		},
	}
}

func (k *pki) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if k.cfg.TLSCertFile == "" {
		return k.serving.Get(hello)
	}
	cert, err := tls.LoadX509KeyPair(k.cfg.TLSCertFile, k.cfg.TLSKeyFile)
	if err != nil {
		k.log.Error("serving certificate", "error", err)
		return nil, err
	}
	return &cert, nil
}

func (k *pki) clientRoots() (*x509.CertPool, error) {
	roots := k.authority.Roots()
	if k.cfg.CACertFile == "" {
		return roots, nil
	}
	text, err := os.ReadFile(k.cfg.CACertFile)
	if err != nil {
		return nil, fmt.Errorf("roots of client certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("roots of client certificates: no certificate in %s", k.cfg.CACertFile)
	}
	return roots, nil
}

// pods tells the node authorizer what the registry knows.
type pods struct{ registry *registry.Registry }

// Pod implements ca.Pods.
func (p pods) Pod(namespace, name string) (ca.Pod, bool) {
	pod, ok := p.registry.Pod(namespace, name)
	if !ok {
		return ca.Pod{}, false
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	return ca.Pod{UID: string(pod.UID), ServiceAccount: account, Node: pod.Spec.NodeName}, true
}

// NodeHasServiceAccount implements ca.Pods.
func (p pods) NodeHasServiceAccount(node, namespace, account string) bool {
	return p.registry.NodeHasServiceAccount(node, namespace, account)
}
