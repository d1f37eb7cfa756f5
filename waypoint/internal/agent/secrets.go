package agent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

// The names of the secrets.
const (
	SecretIdentity = "default"
	SecretRoots    = "ROOTCA"
)

// redacted stands for private keys in what people see.
const redacted = "[redacted]"

// Secret makes one of the two secrets of a certificate, and its version. Without withKey the private key is not in it.
func Secret(name string, w *certs.Workload, withKey bool) (*tlsv3.Secret, string, error) {
	switch name {
	case SecretIdentity:
		chain := encode(w.Certificate.Certificate)
		key := []byte(redacted)
		if withKey {
			der, err := x509.MarshalPKCS8PrivateKey(w.Certificate.PrivateKey)
			if err != nil {
				return nil, "", fmt.Errorf("private key of %s: %w", w.ID, err)
			}
			key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		}
		return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(chain), PrivateKey: inline(key),
		}}}, version(chain), nil
	case SecretRoots:
		raw := make([][]byte, len(w.RootCerts))
		for i, root := range w.RootCerts {
			raw[i] = root.Raw
		}
		roots := encode(raw)
		return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(roots),
		}}}, version(roots), nil
	}
	return nil, "", fmt.Errorf("secret %q: there are only %q and %q", name, SecretIdentity, SecretRoots)
}

func inline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

func encode(certificates [][]byte) []byte {
	var out []byte
	for _, der := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

func version(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}
