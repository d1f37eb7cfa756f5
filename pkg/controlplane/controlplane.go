// Package controlplane says how calls to the control plane are secured: TLS against roots that are read anew for each
// handshake, and a token that is read anew for each call, because both are rotated while the proxy runs.
package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

// Upstream is one gRPC service of the control plane.
type Upstream struct {
	// URL is https://host:port, or http://host:port without TLS.
	URL string
	// RootCertFile verifies the server.
	RootCertFile string
	// AltHostname is a second name that the server's certificate may bear.
	AltHostname string
	// TokenFile holds the bearer token. Empty sends none.
	TokenFile string
	ClusterID string
	// Headers are added to each call.
	Headers map[string]string
}

// Target is the gRPC target.
func (u Upstream) Target() (string, error) {
	parsed, err := url.Parse(u.URL)
	if err != nil || parsed.Host == "" {
		return "", fmt.Errorf("address %q of the control plane: want https://host:port", u.URL)
	}
	if parsed.Port() == "" {
		return "", fmt.Errorf("address %q of the control plane: the port is missing", u.URL)
	}
	return parsed.Host, nil
}

// DialOptions are those of every connection: transport security, keepalive, headers.
func (u Upstream) DialOptions() ([]grpc.DialOption, error) {
	parsed, err := url.Parse(u.URL)
	if err != nil {
		return nil, fmt.Errorf("address %q of the control plane: %w", u.URL, err)
	}
	transport := insecure.NewCredentials()
	if parsed.Scheme == "https" {
		transport = credentials.NewTLS(u.tlsConfig(parsed.Hostname()))
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(headers{u}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}, nil
}

// Token reads the bearer token.
func (u Upstream) Token() (string, error) {
	data, err := os.ReadFile(u.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token for the control plane: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("token for the control plane: %s is empty", u.TokenFile)
	}
	return token, nil
}

// tlsConfig verifies the server in VerifyConnection, so that renewed roots count at once and a second name can be accepted.
func (u Upstream) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         host,
		NextProtos:         []string{"h2"},
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
		VerifyConnection: func(state tls.ConnectionState) error {
			return u.verify(state, host)
		},
	}
}

func (u Upstream) verify(state tls.ConnectionState, host string) error {
	text, err := os.ReadFile(u.RootCertFile)
	if err != nil {
		return fmt.Errorf("root certificates of the control plane: %w", err)
	}
	trusted, err := certs.ParsePEM(text)
	if err != nil {
		return fmt.Errorf("root certificates of the control plane in %s: %w", u.RootCertFile, err)
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("the control plane sent no certificate")
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: host}
	for _, cert := range trusted {
		options.Roots.AddCert(cert)
	}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	_, err = state.PeerCertificates[0].Verify(options)
	if err != nil && u.AltHostname != "" {
		options.DNSName = u.AltHostname
		if _, altErr := state.PeerCertificates[0].Verify(options); altErr == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("certificate of the control plane (roots in %s): %w", u.RootCertFile, err)
	}
	return nil
}

// headers adds what each call says of the caller. The token goes over TLS, or to a control plane that the operator chose
// to reach without.
type headers struct{ upstream Upstream }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (h headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	out := maps.Clone(h.upstream.Headers)
	if out == nil {
		out = map[string]string{}
	}
	if h.upstream.ClusterID != "" {
		out["clusterid"] = h.upstream.ClusterID
	}
	if h.upstream.TokenFile != "" {
		token, err := h.upstream.Token()
		if err != nil {
			return nil, err
		}
		out["authorization"] = "Bearer " + token
	}
	return out, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (h headers) RequireTransportSecurity() bool { return false }
