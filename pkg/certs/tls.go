package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// HBONEServerConfig accepts tunnels: TLS 1.3, ALPN h2, a client certificate that chains to our roots with a SPIFFE ID of
// our own trust domain. get is asked once per handshake for the certificate in force; its error ends the handshake.
func HBONEServerConfig(get func() (*Workload, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := get()
			if err != nil {
				return nil, err
			}
			config := hboneConfig(own)
			config.ClientAuth = tls.RequireAnyClientCert
			config.VerifyConnection = func(state tls.ConnectionState) error {
				peer, err := verifyPeer(state, own.Roots, x509.ExtKeyUsageClientAuth)
				if err != nil {
					return err
				}
				id, ok := spiffe.FromCertificate(peer)
				if !ok {
					return errors.New("the client's certificate has no SPIFFE ID")
				}
				if id.TrustDomain != own.ID.TrustDomain {
					return fmt.Errorf("the client %s is of another trust domain than %s", id, own.ID.TrustDomain)
				}
				return nil
			}
			return config, nil
		},
	}
}

// HBONEClientConfig opens tunnels as w to a server that must prove one of the SPIFFE URIs in expect; other entries are
// ignored, and with none left every server is refused. No SNI is sent.
func HBONEClientConfig(w *Workload, expect []string) *tls.Config {
	config := hboneConfig(w)
	// The server is verified by its SPIFFE ID in VerifyConnection, as it has no host name; the chain too.
	config.InsecureSkipVerify = true //nolint:gosec // see VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		peer, err := verifyPeer(state, w.Roots, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return err
		}
		for _, uri := range peer.URIs {
			name := uri.String()
			if strings.HasPrefix(name, "spiffe://") && slices.Contains(expect, name) {
				return nil
			}
		}
		return fmt.Errorf("the server is %v, want one of %v", peer.URIs, expect)
	}
	return config
}

// PeerID is the identity that the other side proved.
func PeerID(state tls.ConnectionState) (spiffe.ID, bool) {
	if len(state.PeerCertificates) == 0 {
		return spiffe.ID{}, false
	}
	return spiffe.FromCertificate(state.PeerCertificates[0])
}

// hboneConfig is what both sides have in common. Sessions are not resumed: each handshake proves the identity anew.
// Records are written whole from the start, as tunnels carry bulk.
func hboneConfig(own *Workload) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{"h2"},
		Certificates:                []tls.Certificate{own.Certificate},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// verifyPeer checks version, protocol, cipher suite and chain, and returns the leaf. TLS 1.3 suites cannot be chosen in
// crypto/tls, so a suite that is not AES-GCM ends the handshake here.
func verifyPeer(state tls.ConnectionState, roots *x509.CertPool, usage x509.ExtKeyUsage) (*x509.Certificate, error) {
	if state.NegotiatedProtocol != "h2" {
		return nil, fmt.Errorf("the peer chose the protocol %q, want h2", state.NegotiatedProtocol)
	}
	if state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 && state.CipherSuite != tls.TLS_AES_256_GCM_SHA384 {
		return nil, fmt.Errorf("the cipher suite %s is not allowed, want AES-GCM", tls.CipherSuiteName(state.CipherSuite))
	}
	if len(state.PeerCertificates) == 0 {
		return nil, errors.New("the peer sent no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, fmt.Errorf("the peer's certificate: %w", err)
	}
	if n := len(state.PeerCertificates[0].URIs); n > 1 {
		return nil, fmt.Errorf("the peer's certificate names %d URIs, and an identity is one (X.509-SVID, section 2)", n)
	}
	return state.PeerCertificates[0], nil
}
