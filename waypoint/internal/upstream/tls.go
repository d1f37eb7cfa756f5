package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// anyPeerOf marks a tunnel whose peer is not known exactly: what the cluster behind it asks for decides.
const anyPeerOf = "cluster:"

// IdentityError says that the peer proved another identity than the one that is expected at its address.
type IdentityError struct {
	Got  string
	Want string
}

// Error implements error.
func (e *IdentityError) Error() string { return fmt.Sprintf("the peer is %s, want %s", e.Got, e.Want) }

func (m *Manager) certificate(ctx context.Context) (*certs.Workload, error) {
	if m.deps.Certs == nil {
		return nil, errors.New("the proxy has no certificate")
	}
	own, err := m.deps.Certs.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	return own, nil
}

// dialTunnel opens an HBONE connection for the pool.
func (m *Manager) dialTunnel(ctx context.Context, key hbone.PoolKey) (net.Conn, error) {
	own, err := m.certificate(ctx)
	if err != nil {
		return nil, err
	}
	nc, err := m.deps.Network.Dial(ctx, "tcp", key.Dest, netip.Addr{})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", key.Dest, err)
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if direct, err := netx.Direct(tcp); err == nil {
			nc = direct
		}
	}
	secured := tls.Client(nc, m.tunnelTLS(own, key.ExpectedSANs))
	if err := secured.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", key.Dest, err)
	}
	return hbone.WithExpiry(secured, own.NotAfter()), nil
}

// tunnelTLS verifies the chain, and then that the peer is exactly who is expected.
func (m *Manager) tunnelTLS(own *certs.Workload, expect string) *tls.Config {
	config := certs.HBONEClientConfig(own, []string{expect})
	cluster, open := strings.CutPrefix(expect, anyPeerOf)
	config.VerifyConnection = func(state tls.ConnectionState) error {
		var uris []string
		if len(state.PeerCertificates) > 0 {
			for _, u := range state.PeerCertificates[0].URIs {
				uris = append(uris, u.String())
			}
		}
		if !open {
			if !slices.Contains(uris, expect) {
				return &IdentityError{Got: strings.Join(uris, ","), Want: expect}
			}
			return certs.HBONEClientConfig(own, []string{expect}).VerifyConnection(state)
		}
		conf := m.cfg.Load().Clusters[cluster]
		if conf == nil || conf.Socket.TLS == nil {
			return fmt.Errorf("the cluster %s is gone", cluster)
		}
		for _, uri := range uris {
			if MatchesSAN(conf.Socket.TLS.PeerSANs, l7.SANURI, uri) {
				return certs.HBONEClientConfig(own, []string{uri}).VerifyConnection(state)
			}
		}
		return &IdentityError{Got: strings.Join(uris, ","), Want: "one that cluster " + cluster + " names"}
	}
	return config
}

// MatchesSAN is whether one of the matchers takes the name.
func MatchesSAN(matchers []l7.SANMatcher, kind l7.SANKind, name string) bool {
	return slices.ContainsFunc(matchers, func(m l7.SANMatcher) bool {
		if m.Kind != l7.SANAny && m.Kind != kind {
			return false
		}
		if host, exactly := m.Matcher.Text(); exactly && kind == l7.SANDNS {
			return coversHost(name, host)
		}
		return m.Matcher.Match(name)
	})
}

// coversHost is whether a DNS name of a certificate is for a host: the same, or a wildcard as its whole first label (RFC 6125, 6.4.3).
// Case makes no difference.
func coversHost(name, host string) bool {
	if strings.EqualFold(name, host) {
		return true
	}
	rest, wildcard := strings.CutPrefix(name, "*.")
	label, domain, deep := strings.Cut(host, ".")
	return wildcard && deep && label != "" && strings.EqualFold(rest, domain)
}

// secure originates TLS where the cluster says so: on a direct connection, or inside of the tunnel. It closes the connection on
// failure.
func (h *Host) secure(ctx context.Context, e *l7.Endpoint, to *link, alpn string) error {
	conf := h.cluster.Config()
	socket := conf.SocketFor(e)
	if err := h.introduce(ctx, to, socket.Proxy); err != nil {
		return err
	}
	if socket.TLS == nil {
		return nil
	}
	config, err := h.cluster.manager.clientTLS(ctx, socket.TLS, alpn, e)
	if err == nil {
		// Mutual TLS of the mesh is with the endpoint itself: as a tunnel, it ends at nobody else.
		if to.tunnel == nil && socket.TLS.Validation == l7.OwnRoots && e.Identity != "" && !conf.AnyIdentity {
			to.identity = e.Identity
			expectIdentity(config, e.Identity)
		}
		under := to.Conn
		if to.tunnel != nil {
			under = politely(to.tunnel)
		}
		secured := tls.Client(under, config)
		if err = secured.HandshakeContext(ctx); err == nil {
			to.Conn = secured
			return nil
		}
		err = fmt.Errorf("TLS_error: %w", err)
	}
	to.Conn.Close()
	return err
}

// expectIdentity adds to a configuration that the peer is exactly who is expected.
func expectIdentity(config *tls.Config, want string) {
	names := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if names != nil {
			if err := names(state); err != nil {
				return err
			}
		}
		id, ok := certs.PeerID(state)
		if !ok || id.String() != want {
			return &IdentityError{Got: id.String(), Want: want}
		}
		return nil
	}
}

func (m *Manager) clientTLS(ctx context.Context, t *l7.ClientTLS, alpn string, e *l7.Endpoint) (*tls.Config, error) {
	config := &tls.Config{ServerName: t.SNI, MinVersion: max(t.MinVersion, tls.VersionTLS12), MaxVersion: t.MaxVersion, NextProtos: t.ALPN}
	if len(config.NextProtos) == 0 && alpn != "" {
		config.NextProtos = []string{alpn}
	}
	if config.ServerName == "" && t.AutoSNI {
		config.ServerName = e.Hostname
	}
	served, err := m.secrets(t)
	if err != nil {
		return nil, err
	}
	if t.Certificate == l7.OwnCertificate || t.Validation == l7.OwnRoots {
		own, err := m.certificate(ctx)
		if err != nil {
			return nil, err
		}
		if t.Certificate == l7.OwnCertificate {
			config.Certificates = []tls.Certificate{own.Certificate}
		}
		if t.Validation == l7.OwnRoots {
			served.Authorities = &l7.Authorities{Pool: own.Roots, Certs: own.RootCerts}
		}
	}
	if served.Certificate != nil {
		config.Certificates = []tls.Certificate{*served.Certificate}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate for the server: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	// The chain and the names are verified below: they are matched as the cluster says, not by the server name.
	config.InsecureSkipVerify = true //nolint:gosec // see VerifyConnection
	if t.Insecure {
		return config, nil
	}
	peers, err := m.trusted(t, served.Authorities)
	if err != nil {
		return nil, err
	}
	config.VerifyConnection = func(state tls.ConnectionState) error { return verifyServer(state, t, peers) }
	return config, nil
}

// verifyServer checks the chain, and one of the names of the certificate if any are asked for.
func verifyServer(state tls.ConnectionState, t *l7.ClientTLS, peers trust.Peers) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server sent no certificate")
	}
	leaf := state.PeerCertificates[0]
	if err := peers.Verify(state.PeerCertificates, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	if t.AutoSANCheck {
		if err := leaf.VerifyHostname(state.ServerName); err != nil {
			return fmt.Errorf("the server's certificate: %w", err)
		}
	}
	if len(t.PeerSANs) == 0 {
		return nil
	}
	if MatchesCertificate(t.PeerSANs, leaf) {
		return nil
	}
	var names []string
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	return &IdentityError{Got: strings.Join(append(names, leaf.DNSNames...), ","), Want: "one of the subject alternative names of the cluster"}
}

// MatchesCertificate is whether one of the matchers takes one of the names of a certificate.
func MatchesCertificate(matchers []l7.SANMatcher, leaf *x509.Certificate) bool {
	for _, u := range leaf.URIs {
		if MatchesSAN(matchers, l7.SANURI, u.String()) {
			return true
		}
	}
	for _, name := range leaf.DNSNames {
		if MatchesSAN(matchers, l7.SANDNS, name) {
			return true
		}
	}
	for _, ip := range leaf.IPAddresses {
		if MatchesSAN(matchers, l7.SANIP, ip.String()) {
			return true
		}
	}
	for _, address := range leaf.EmailAddresses {
		if MatchesSAN(matchers, l7.SANEmail, address) {
			return true
		}
	}
	return false
}
