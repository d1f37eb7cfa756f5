package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
	"github.com/isthmus-mesh/isthmus/pilot/internal/named"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
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
	offline   *ca.Offline          // nil without an API server
	api       kubernetes.Interface // nil without an API server
	changed   func()               // is called after the roots have changed
	log       *slog.Logger
}

func (p *plane) newPKI(ctx context.Context) (*pki, error) {
	cfg, log := p.cfg, telemetry.Scoped(p.cfg.Log, "ca")
	trustDomain := func() string { return p.settings.Load().Proto.GetTrustDomain() }
	authority, err := p.openAuthority(ctx, ca.Options{
		TrustDomain: trustDomain(), DefaultTTL: cfg.DefaultCertTTL, MaxTTL: cfg.MaxCertTTL, RootTTL: cfg.RootCertTTL, RootGrace: cfg.RootCertGrace, Log: log,
	})
	if err != nil {
		return nil, err
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
	}
	var offline *ca.Offline
	if p.api != nil {
		if cfg.OfflineTokens {
			offline = ca.NewOffline(p.api.Discovery().RESTClient(), cfg.TokenAudiences, pods{p.registry}, log)
		}
		callers = append(callers, ca.NewTokenReview(p.api.AuthenticationV1().TokenReviews(), cfg.ClusterID, cfg.TokenAudiences, offline))
	}
	if len(cfg.TrustedGateways) > 0 {
		callers = append(callers, ca.ForwardedCertificate{Trusted: cfg.TrustedGateways, TrustDomains: trustDomains})
	}
	if cfg.JWKSFile == "" && p.api == nil {
		log.Warn("tokens are refused: there are no keys to verify them with; set --jwksFile")
	}
	nodes := &ca.NodeAuthorizer{
		ClusterID: cfg.ClusterID, Trusted: cfg.TrustedNodeAccounts, Pods: pods{p.registry}, TrustDomains: trustDomains,
	}
	k := &pki{
		cfg: cfg, authority: authority, callers: callers, offline: offline, api: p.api, changed: p.rootsChanged, log: log, serving: ca.NewServing(authority, serverNames(cfg), p.tagged),
		service: &ca.Server{Authority: authority, Authenticator: callers, Nodes: nodes, TrustDomain: trustDomain, Metrics: metrics, Log: log},
	}
	return k, k.writeRoots()
}

// openAuthority finds the key material: in a directory, in the cluster, or nowhere.
func (p *plane) openAuthority(ctx context.Context, options ca.Options) (authority *ca.Authority, err error) {
	switch {
	case p.cfg.CADir != "":
		return ca.Open(ctx, p.cfg.CADir, options)
	case p.api != nil:
		err = p.reach(ctx, "read the key material", func() error {
			authority, err = ca.OpenSecrets(ctx, p.api, p.cfg.Namespace, options)
			return err
		})
		return authority, err
	}
	options.Log.Warn("the CA's key lives in memory only: after a restart no certificate issued before is valid; set --caDir")
	return ca.Open(ctx, "", options)
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

// tagged reports whether a DNS name is that of a tag of this revision: of the Service that is the tag.
func (p *plane) tagged(name string) bool {
	host, ok := strings.CutSuffix(strings.TrimSuffix(name, "."+p.cfg.Domain), "."+p.cfg.Namespace+".svc")
	if !ok {
		return false
	}
	service, ok := p.registry.Service(p.cfg.Namespace, host)
	if !ok {
		return false
	}
	revision := cmp.Or(p.cfg.Revision, "default")
	tag := service.Labels[deploy.LabelTag]
	return tag != "" && host == "istiod-revision-tag-"+tag && service.Labels[deploy.LabelRevision] == revision
}

// run follows the key material until ctx ends.
func (k *pki) run(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	var following sync.WaitGroup
	defer following.Wait()
	every := keyMaterialCheck
	if k.cfg.CADir == "" && k.api != nil {
		every = k.cfg.RootCertCheck
		for _, name := range []string{ca.SelfSignedSecret, ca.PlugInSecret} {
			following.Go(func() { k.followSecret(ctx, name, wake) })
		}
	}
	following.Go(func() { k.authority.Follow(ctx, every, wake) })
	if k.offline != nil {
		following.Go(func() { k.offline.Run(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.authority.Changed():
			if err := k.writeRoots(); err != nil {
				k.log.Error("root certificates not written", "error", err)
			}
			k.changed()
		}
	}
}

// followSecret has the authority look at its key material when a Secret changes.
func (k *pki) followSecret(ctx context.Context, name string, wake chan<- struct{}) {
	err := named.Secret(ctx, k.api, k.cfg.Namespace, name, func(*corev1.Secret) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		k.log.Error("changes of the key material are not seen at once", "secret", name, "error", err)
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

// webhookTLS is for the API server, which asks for nothing but a certificate with our name.
func (k *pki) webhookTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: k.certificate, NextProtos: []string{"h2", "http/1.1"}}
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
	return ca.Pod{UID: string(pod.UID), ServiceAccount: pod.Account, Node: pod.Node}, true
}

// NodeHasServiceAccount implements ca.Pods.
func (p pods) NodeHasServiceAccount(node, namespace, account string) bool {
	return p.registry.NodeHasServiceAccount(node, namespace, account)
}
